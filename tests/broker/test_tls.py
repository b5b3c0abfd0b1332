"""Connections to a NATS server over TLS: who is trusted, and that nothing is said to a server that speaks none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker.connection import BrokerConfig, Connection
from broker.errors import BrokerError, BrokerUnavailable, BrokerUnsuitable
from broker.roles import Role
from broker.tls import TlsFiles
from tests.support.certificates import Authority, Certificate
from tests.support.nats import ServerOfATest
from tests.support.waiting import until

pytestmark = pytest.mark.nats


class TlsServer(ServerOfATest):
    """The embedded server with TLS, as an operator would configure an external one."""

    def __init__(self, directory: Path, certificate: Certificate, ca: Path | None) -> None:
        super().__init__(directory)
        self._config_file = directory / "nats" / "server.conf"
        verify = f"verify: true, ca_file: {str(ca)!r}" if ca is not None else ""
        self._tls = f"tls {{ cert_file: {str(certificate.cert)!r}, key_file: {str(certificate.key)!r}, {verify} }}\n"

    def _write_config(self) -> None:
        super()._write_config()
        self._config_file.write_text(self._config_file.read_text() + self._tls)


@asynccontextmanager
async def serving(directory: Path, certificate: Certificate, ca: Path | None = None) -> AsyncIterator[TlsServer]:
    server = TlsServer(directory, certificate, ca)
    await server.start()
    try:
        yield server
    finally:
        await server.remove()


def config(server: ServerOfATest, tls: TlsFiles | None, host: str = "127.0.0.1", scheme: str = "tls") -> BrokerConfig:
    return BrokerConfig(f"{scheme}://{host}:{server.port}", Role.EDGE, "test", server.credentials, tls=tls)


async def refused(broker: BrokerConfig) -> str:
    with pytest.raises(BrokerError) as caught:
        await Connection.open(broker, timeout_s=30)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_a_connection_over_tls_lasts_over_a_restart(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with serving(tmp_path, authority.issue("server")) as server:
        connection = await Connection.open(config(server, TlsFiles(authority.ca)))
        assert (await connection.api("INFO"))["limits"]
        await server.kill()
        await until(lambda: not connection.is_connected)
        await server.start()
        assert await connection.wait_connected(30)
        assert (await connection.api("INFO"))["limits"]
        await connection.close()


async def test_a_server_that_nobody_trusted_signed_for_is_refused_at_once(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with serving(tmp_path, authority.issue("server", "nats.example")) as server:
        assert "certificate is not trusted" in await refused(config(server, TlsFiles(Authority(tmp_path, "b").ca)))
        assert "certificate is not trusted" in await refused(config(server, TlsFiles()))
        # Signed, and for somebody else.
        assert "certificate is not trusted" in await refused(config(server, TlsFiles(authority.ca)))


async def test_a_server_may_ask_for_a_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("client", "edge.example")
    async with serving(tmp_path, authority.issue("server"), authority.ca) as server:
        connection = await Connection.open(config(server, TlsFiles(authority.ca, own.cert, own.key)))
        await connection.close()
        with pytest.raises(BrokerUnavailable):
            await Connection.open(config(server, TlsFiles(authority.ca)), timeout_s=1)


@pytest.mark.parametrize("scheme", ["tls", "nats"])
async def test_a_login_is_not_sent_in_the_clear(tmp_path: Path, scheme: str) -> None:
    """Whatever the server says of itself; here it wants no TLS, like one that somebody has put in between."""
    said: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.15.0","max_payload":1048576,"headers":true}\r\n')
        said.append(await reader.read())
        writer.close()

    directory = tmp_path / "creds"
    directory.mkdir()
    (directory / "edge").write_text("user: edge\npassword: secret\n")
    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        broker = BrokerConfig(f"{scheme}://127.0.0.1:{port}", Role.EDGE, "test", directory, tls=TlsFiles())
        assert "speaks no TLS" in await refused(broker)
    assert set(said) <= {b""}


async def test_files_of_no_use_are_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own, other = authority.issue("client"), authority.issue("other")
    (tmp_path / "text").write_text("no certificate")
    for files, named in (
        (TlsFiles(tmp_path / "missing"), tmp_path / "missing"),
        (TlsFiles(tmp_path / "text"), tmp_path / "text"),
        (TlsFiles(authority.ca, own.cert, other.key), other.key),
    ):
        with pytest.raises(BrokerUnsuitable) as caught:
            await Connection.open(BrokerConfig("tls://127.0.0.1:1", Role.EDGE, "test", tls=files))
        assert str(named) in str(caught.value) and "\n" not in str(caught.value)
