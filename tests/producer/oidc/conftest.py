"""An edge that takes the tokens of a real provider beside its keys."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

import pytest

from producer.auth.oidc.key_cache import Timing
from schemas.oidc_policy import OidcPolicy
from tests.conftest import Broker
from tests.producer.conftest import CONFIG, Edge, running_edge, until_served
from tests.producer.scripted_worker import ScriptedWorker
from tests.support.oidc import AUDIENCE, Keys, Provider, running_provider

# The issuer is asked once, and then whenever a test says so.
NEVER_AGAIN = Timing(min_interval_s=1e6)


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with running_provider(tmp_path_factory.mktemp("provider"), Keys()) as provider:
        yield provider


def policy_of(provider: Provider, **changes: object) -> OidcPolicy:
    return OidcPolicy.model_validate({"issuer": provider.issuer, "audience": AUDIENCE, **changes})


@contextlib.asynccontextmanager
async def trusting_edge(broker: Broker, provider: Provider, **changes: object) -> AsyncIterator[Edge]:
    """An edge with the test keys that trusts the provider as well."""
    async with running_edge(broker, replace(CONFIG, oidc=policy_of(provider, **changes))) as edge:
        await until_served(edge)
        yield edge


@pytest.fixture
async def edge(broker: Broker, worker: ScriptedWorker, provider: Provider) -> AsyncIterator[Edge]:
    async with trusting_edge(broker, provider) as edge:
        yield edge


@contextlib.asynccontextmanager
async def answering(answer: Callable[[bytes], bytes], tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server that answers every request line with raw bytes; empty ones never end. Its base address."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            line = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")[0]
            raw = answer(line)
            writer.write(raw)
            await writer.drain()
            if not raw:
                await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.gather(*tasks)


def http(status: str, body: bytes, *headers: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers])
    return head.encode() + b"\r\n\r\n" + body
