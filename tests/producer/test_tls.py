"""HTTP over TLS: versions, client certificates, and files that change while connections go on."""

import asyncio
import contextlib
import logging
import ssl
import warnings
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

import producer.edge.tls
from producer.config import TlsFiles
from producer.edge.tls import FollowingTls, TlsUnusable
from tests.conftest import Broker
from tests.producer.conftest import CONFIG, KEY, Edge, chat, running_edge, until_served
from tests.producer.scripted_worker import Run, ScriptedWorker
from tests.producer.test_limits import Socket
from tests.support.certificates import Authority, Certificate
from tests.support.waiting import until

pytestmark = pytest.mark.nats


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server(authority: Authority) -> Certificate:
    return authority.issue("server")


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.ca)


@contextlib.asynccontextmanager
async def tls_edge(
    broker: Broker, authority: Authority, files: TlsFiles, client: ssl.SSLContext | None = None, **changes: Any
) -> AsyncIterator[Edge]:
    async with running_edge(broker, replace(CONFIG, tls=files, **changes)) as edge:
        assert edge.url.startswith("https://127.0.0.1:")
        headers = {"authorization": f"Bearer {KEY}"}
        verify = client or trusting(authority)
        async with httpx2.AsyncClient(
            base_url=edge.url, headers=headers, timeout=30, trust_env=False, verify=verify
        ) as http:
            await edge.client.aclose()
            edge.client = http
            yield edge


async def test_calls_and_streams_go_over_tls(broker: Broker, worker: ScriptedWorker, authority: Authority,
    server: Certificate) -> None:  # fmt: skip
    async with tls_edge(broker, authority, TlsFiles(server.cert, server.key)) as edge:
        await until_served(edge)
        answer = await edge.post(chat("one two"))
        assert answer.json()["choices"][0]["message"]["content"] == "one two"
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        streamed = await edge.post(chat("one two", stream=True))
        assert streamed.text.rstrip().endswith("data: [DONE]")


async def test_what_is_older_or_plain_is_not_spoken_to(broker: Broker, authority: Authority,
    server: Certificate) -> None:  # fmt: skip
    async with tls_edge(broker, authority, TlsFiles(server.cert, server.key)) as edge:
        for version, is_spoken in ((ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)):
            context = trusting(authority)
            context.set_ciphers("DEFAULT@SECLEVEL=0")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                context.minimum_version = context.maximum_version = version
            assert await is_open_to(edge, context) is is_spoken
        socket = Socket(*await asyncio.open_connection("127.0.0.1", edge.address.port))
        await socket.send(f"GET /version HTTP/1.1\r\nAuthorization: Bearer {KEY}\r\n\r\n")
        assert await socket.closed()
        socket.close()
        assert (await edge.client.get("/livez")).status_code == 200


async def test_a_handshake_that_does_not_come_is_given_up(broker: Broker, authority: Authority,
    server: Certificate) -> None:  # fmt: skip
    files = TlsFiles(server.cert, server.key)
    async with tls_edge(broker, authority, files, header_timeout_s=0.3) as edge:
        begun = ssl.MemoryBIO()
        hello = trusting(authority).wrap_bio(ssl.MemoryBIO(), begun, server_hostname="127.0.0.1")
        with contextlib.suppress(ssl.SSLWantReadError):
            hello.do_handshake()
        for first in (b"", begun.read()[:50]):
            reader, writer = await asyncio.open_connection("127.0.0.1", edge.address.port)
            writer.write(first)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
        assert await is_open_to(edge, trusting(authority))


async def is_open_to(edge: Edge, context: ssl.SSLContext) -> bool:
    """Whether a request of a client with this context is answered."""
    async with httpx2.AsyncClient(base_url=edge.url, trust_env=False, verify=context) as client:
        try:
            return (await client.get("/livez")).status_code == 200
        except httpx2.TransportError:
            return False


async def test_only_clients_with_a_certificate_get_in_when_asked_for(broker: Broker, worker: ScriptedWorker,
    authority: Authority, server: Certificate, tmp_path: Path) -> None:  # fmt: skip
    known = trusting(authority)
    known.load_cert_chain(authority.issue("client", "a-client").both)
    strange = trusting(authority)
    strange.load_cert_chain(Authority(tmp_path, "other").issue("stranger", "a-client").both)
    async with tls_edge(broker, authority, TlsFiles(server.cert, server.key, authority.ca), known) as edge:
        await until_served(edge)
        assert (await edge.post(chat())).status_code == 200
        # A certificate is no key.
        assert (await edge.post(chat(), authorization="Bearer nobodys")).status_code == 401
        assert not await is_open_to(edge, trusting(authority))
        assert not await is_open_to(edge, strange)
        async with httpx2.AsyncClient(trust_env=False) as probe:
            assert (await probe.get(edge.address.metrics_url.replace("/metrics", "/readyz"))).status_code == 200


async def serial(edge: Edge, authority: Authority) -> str:
    """That of the certificate that a new connection gets."""
    _, writer = await asyncio.open_connection("127.0.0.1", edge.address.port, ssl=trusting(authority))
    number = str(writer.get_extra_info("peercert")["serialNumber"])
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()
    return number


async def test_a_new_certificate_is_taken_while_a_stream_goes_on(broker: Broker, worker: ScriptedWorker,
    authority: Authority, server: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(producer.edge.tls, "_LOOK_EVERY_S", 0.02)
    go_on = asyncio.Event()

    async def hold(run: Run) -> None:
        await run.say("one")
        await go_on.wait()
        await run.finish(" two")

    worker.script = hold
    async with tls_edge(broker, authority, TlsFiles(server.cert, server.key)) as edge:
        await until_served(edge)
        first = await serial(edge, authority)
        async with edge.client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as answer:
            lines = answer.aiter_lines()
            while "one" not in await anext(lines):
                pass
            authority.issue("server")

            async def is_another() -> bool:
                return await serial(edge, authority) != first

            await until(is_another)
            go_on.set()
            rest = [line async for line in lines]
        assert any("two" in line for line in rest) and "data: [DONE]" in rest


def test_files_of_no_use_change_nothing(authority: Authority, server: Certificate,
    caplog: pytest.LogCaptureFixture) -> None:  # fmt: skip
    tls = FollowingTls(TlsFiles(server.cert, server.key))
    before = tls.current
    server.key.write_text("half a ke")
    with caplog.at_level(logging.CRITICAL):
        tls.reload()
    assert tls.current is before
    authority.issue("server")
    tls.reload()
    assert tls.current is not before


def test_what_is_wrong_with_a_file_is_one_line_that_names_it(authority: Authority, server: Certificate,
    tmp_path: Path) -> None:  # fmt: skip
    other = authority.issue("other")
    (tmp_path / "text").write_text("no certificate")
    missing = tmp_path / "missing"
    for files, named in (
        (TlsFiles(missing, server.key), missing),
        (TlsFiles(server.cert, missing), missing),
        (TlsFiles(server.cert, server.key, missing), missing),
        (TlsFiles(server.cert, other.key), other.key),
        (TlsFiles(tmp_path / "text", server.key), tmp_path / "text"),
        (TlsFiles(server.cert, server.key, tmp_path / "text"), tmp_path / "text"),
    ):
        with pytest.raises(TlsUnusable) as caught:
            FollowingTls(files)
        assert str(named) in str(caught.value) and "\n" not in str(caught.value)
