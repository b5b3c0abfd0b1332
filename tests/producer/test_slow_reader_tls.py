"""A client over TLS that does not read: TLS adds no buffer to the stated one, on either event loop."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import httptools
import httpx2
import pytest
import uvloop

from broker.connection import BrokerConfig
from broker.roles import Role
from producer.config import EdgeConfig, TlsFiles
from producer.edge.serve import EdgeAddress, run_edge
from tests.conftest import Broker
from tests.producer.conftest import CONFIG, KEY, Edge, chat, put_model, running_edge, running_worker, until_served
from tests.producer.test_leaving import RawClient
from tests.producer.test_slow_reader import BUFFER, PIECE, PIECES, says_much, until_cut
from tests.producer.test_stream import events_of, text_of
from tests.support.certificates import Authority

pytestmark = pytest.mark.nats

NewLoop = Callable[[], asyncio.AbstractEventLoop]


@contextlib.asynccontextmanager
async def edge_on(new_loop: NewLoop, broker: Broker, config: EdgeConfig, ca: Path) -> AsyncIterator[Edge]:
    """An edge on an event loop of its own, in a thread."""
    ours, ready = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
    stops: list[Callable[[], None]] = []

    async def serve() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        stops.append(lambda: loop.call_soon_threadsafe(stop.set) and None)

        def on_ready(address: EdgeAddress) -> None:
            ours.call_soon_threadsafe(ready.set_result, address)

        place = BrokerConfig(broker.server.url, Role.EDGE, config.edge_id, broker.server.credentials)
        await run_edge(config, place, on_ready=on_ready, stop=stop, handle_signals=False)

    def run() -> None:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(serve())

    task = asyncio.create_task(asyncio.to_thread(run))
    await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    headers = {"authorization": f"Bearer {KEY}"}
    trusting = ssl.create_default_context(cafile=ca)
    address: EdgeAddress = ready.result()
    try:
        async with httpx2.AsyncClient(
            base_url=address.url, headers=headers, timeout=30, trust_env=False, verify=trusting
        ) as client:
            yield Edge(address, client, asyncio.Event(), task)
    finally:
        stops[0]()
        await task


class Sleeper:
    """Asks for a stream over TLS, and reads it when told to. Blocking: for threads."""

    def __init__(self, port: int, ca: Path) -> None:
        sock = socket.socket()
        # Before connecting, and too small to grow: the kernel would read ahead for us.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", port))
        self.own_buffer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        self._sock = ssl.create_default_context(cafile=ca).wrap_socket(sock, server_hostname="127.0.0.1")
        self._sock.sendall(RawClient.request(chat(stream=True)))

    def read_all(self) -> bytes:
        received = b""
        with self._sock, contextlib.suppress(ConnectionResetError):
            while piece := self._sock.recv(65536):
                received += piece
        return received


class Body:
    """Of an answer as it came over the wire."""

    def __init__(self, raw: bytes) -> None:
        self.content = b""
        self.is_whole = False
        httptools.HttpResponseParser(self).feed_data(raw)

    def on_body(self, piece: bytes) -> None:
        self.content += piece

    def on_message_complete(self) -> None:
        self.is_whole = True

    @property
    def events(self) -> bytes:
        """Without comments."""
        return b"\n".join(line for line in self.content.split(b"\n") if not line.startswith(b":"))


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
async def test_a_reader_over_tls_is_cut_at_the_stated_buffer_and_can_resume(
    new_loop: NewLoop, broker: Broker, tmp_path: Path
) -> None:
    await put_model(broker)
    authority = Authority(tmp_path)
    server = authority.issue("server")
    config = replace(
        CONFIG, stream_buffer_bytes=BUFFER, slow_reader_timeout_s=0.3, tls=TlsFiles(server.cert, server.key)
    )
    async with (
        running_worker(broker.worker, says_much) as worker,
        edge_on(new_loop, broker, config, authority.ca) as edge,
    ):
        await until_served(edge)
        client = await asyncio.to_thread(Sleeper, edge.address.port, authority.ca)
        await until_cut(edge)
        received = await asyncio.to_thread(client.read_all)
        print(f"received {len(received)} bytes, buffer {BUFFER}, own {client.own_buffer}")
        assert len(received) <= BUFFER + client.own_buffer
        body = Body(received)
        assert body.is_whole
        *seen, (_, told) = events_of(body.events)
        assert told["error"]["code"] == "slow_reader"
        last = next(place for place, _ in reversed(seen) if place is not None)
        request_id = worker.runs[0].request.request_id
        # Where readers have the usual time.
        async with running_edge(broker, replace(CONFIG, edge_id="e2")) as other:
            rest = await other.client.get(f"/v1/requests/{request_id}/events", headers={"last-event-id": last})
        lines = b"\n".join(line for line in rest.content.split(b"\n") if not line.startswith(b":"))
        assert text_of(seen) + text_of(events_of(lines)) == PIECE * PIECES
        assert len(worker.runs) == 1
