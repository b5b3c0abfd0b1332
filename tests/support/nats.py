"""A NATS server per test: in Docker through testcontainers when an engine runs, else the nats-server binary."""

import asyncio
import functools
import os
import socket
from pathlib import Path
from typing import Any, Protocol

from broker.connection import BrokerConfig, Connection
from broker.credentials import accepted_logins, create_credentials, write_private
from broker.roles import Role
from broker.server import EmbeddedServer
from broker.server_config import USERS_FILE, render_config, render_users
from tests.support.ports import free_port
from tests.support.waiting import until

_IMAGE = "nats:2.15-alpine"


class _Process(Protocol):
    """What a test may do to a server. `kill` is SIGKILL; `start` comes back on the same port with the same data.

    `remove` ends it for good: its data need not be put in order.
    """

    @property
    def port(self) -> int: ...
    @property
    def credentials(self) -> Path: ...
    async def start(self) -> Any: ...
    async def kill(self) -> None: ...
    async def remove(self) -> None: ...


# Who publishes batches on the servers of tests.
TENANTS = ("acme", "other")


class NatsServer:
    """A server of the test's own, with our accounts and roles."""

    def __init__(self, process: _Process) -> None:
        self._process = process
        self._connections: list[Connection] = []

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        return self._process.port

    @property
    def credentials(self) -> Path:
        """Directory with a credentials file per role."""
        return self._process.credentials

    @property
    def pid(self) -> int | None:
        """Process id, or None in a container."""
        return getattr(self._process, "pid", None)

    async def connect(self, role: Role, name: str | None = None) -> Connection:
        """A new connection in `role`; closed with the fixture."""
        config = BrokerConfig(self.url, role, name or f"test-{role}", self.credentials)
        connection = await Connection.open(config)
        self._connections.append(connection)
        return connection

    async def start(self) -> None:
        await self._process.start()

    async def kill(self) -> None:
        """SIGKILL; returns when our connections know. They go on trying to reconnect."""
        await self._process.kill()
        await until(lambda: not any(connection.is_connected for connection in self._connections))

    async def restart(self) -> None:
        """SIGKILL, then start on the same port with the same data."""
        await self.kill()
        await self._process.start()

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()
        await self._process.remove()


async def start_nats(directory: Path) -> NatsServer:
    """Start a server with its files under `directory`. The caller closes it."""
    process: _Process = DockerServer(directory) if docker_runs() else ServerOfATest(directory, free_port())
    create_credentials(process.credentials, TENANTS)
    await process.start()
    return NatsServer(process)


@functools.cache
def docker_runs() -> bool:
    """Whether a Docker engine answers and has, or can fetch, the images."""
    if not _engine_listens():  # the client library leaks a socket when it finds out itself
        return False
    try:
        import docker
        from docker.errors import DockerException, ImageNotFound
        from testcontainers.core.config import testcontainers_config
    except ImportError:
        return False
    try:
        client = docker.from_env(timeout=5)
    except DockerException:
        return False
    try:
        for image in (_IMAGE, testcontainers_config.ryuk_image):
            try:
                client.images.get(image)
            except ImageNotFound:
                client.images.pull(image)
    except (DockerException, OSError):
        return False
    finally:
        client.close()
    return True


class ServerOfATest(EmbeddedServer):
    """The packaged binary."""

    async def remove(self) -> None:
        await self.kill()


class DockerServer:
    """nats-server in a container that keeps its port and its data over `kill` and `start`."""

    def __init__(self, directory: Path) -> None:
        self.credentials = directory / "creds"
        self.port = free_port()
        self._directory = directory
        self._container: Any = None

    async def start(self) -> None:
        await asyncio.to_thread(self._start)
        await _wait_for_info(self.port)

    async def kill(self) -> None:
        await asyncio.to_thread(self._container.get_wrapped_container().kill)

    async def remove(self) -> None:
        await asyncio.to_thread(self._container.stop)

    def _start(self) -> None:
        if self._container is not None:
            self._container.get_wrapped_container().start()
            return
        from testcontainers.core.container import DockerContainer

        config = render_config(
            name="test",
            store_dir="/data",
            listen="0.0.0.0:4222",
            http="127.0.0.1:8222",
            max_file=4 << 30,
        )
        write_private(self._directory / "server.conf", config)
        write_private(self._directory / USERS_FILE, render_users(accepted_logins(self.credentials)))
        container = DockerContainer(_IMAGE, command="-c /etc/inferflux/server.conf")
        container.with_volume_mapping(str(self._directory), "/etc/inferflux", "ro")
        container.with_bind_ports(4222, self.port)
        self._container = container.start()


def _engine_listens() -> bool:
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not host.startswith("unix://"):
        return True
    with socket.socket(socket.AF_UNIX) as engine:
        return engine.connect_ex(host.removeprefix("unix://")) == 0


async def _wait_for_info(port: int) -> None:
    """Wait until the server greets: the port mapping accepts before the server does."""
    async with asyncio.timeout(30):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                greeting = await reader.readline()
                writer.close()
                if greeting.startswith(b"INFO"):
                    return
            except OSError:
                pass
            await asyncio.sleep(0.05)
