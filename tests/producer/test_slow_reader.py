"""Clients that do not read: a stated buffer is held for them, then they are cut, and the answer is there for later."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from broker.records import read_records
from broker.subjects import STREAM_TOKENS
from producer.edge.stream import StreamWriter
from schemas.codec import decode_event
from schemas.events import Cancelled, Event, Failed, Finished
from tests.conftest import Broker
from tests.producer.conftest import CONFIG, Edge, chat, put_model, running_edge, running_worker, until_served
from tests.producer.hand_fed import make_call, started_view
from tests.producer.scripted_worker import Run, ScriptedWorker
from tests.producer.test_leaving import RawClient, events_until, until_settled
from tests.producer.test_stream import events_of, text_of
from tests.support.waiting import until

pytestmark = pytest.mark.nats

BUFFER = 64 * 1024
PIECE = "x" * 200
PIECES = 3000


async def says_much(run: Run) -> None:
    for start in range(0, PIECES, 50):
        await run.say(*[PIECE] * 50)
        await asyncio.sleep(0)
        if start % 500 == 0:
            await run.claim.checkpoint()
    await run.finish()


@asynccontextmanager
async def edge_with_a_talker(broker: Broker) -> AsyncIterator[tuple[Edge, ScriptedWorker]]:
    await put_model(broker)
    config = replace(CONFIG, stream_buffer_bytes=BUFFER, slow_reader_timeout_s=0.3)
    async with running_worker(broker.worker, says_much) as worker, running_edge(broker, config) as edge:
        await until_served(edge)
        yield edge, worker


class Sleeper:
    """A client that asks for a stream and does not read it before it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    @classmethod
    async def call(cls, edge: Edge, **headers: str) -> "Sleeper":
        sock = socket.socket()
        # Before connecting, and too small to grow: the kernel would read ahead for us.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", edge.address.port))
        await loop.sock_sendall(sock, RawClient.request(chat(stream=True), **headers))
        return cls(sock)

    @property
    def own_buffer(self) -> int:
        """What can lie on the client's own side."""
        return self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def close(self) -> None:
        """Go away with what has arrived unread: the connection is reset."""
        self._sock.close()

    async def ask_again(self) -> None:
        await asyncio.get_running_loop().sock_sendall(self._sock, RawClient.request(chat(stream=True)))

    async def read_answer(self) -> None:
        """One whole stream."""
        received = b""
        while not received.endswith(b"\r\n0\r\n\r\n"):
            received += await asyncio.get_running_loop().sock_recv(self._sock, 65536)

    async def read_all(self) -> bytes:
        """What is there until the connection ends, in whatever way."""
        loop, received = asyncio.get_running_loop(), b""
        try:
            while piece := await loop.sock_recv(self._sock, 65536):
                received += piece
        except ConnectionResetError:
            pass
        finally:
            self._sock.close()
        return received


async def until_cut(edge: Edge) -> None:
    async def is_cut() -> bool:
        answer = await edge.client.get("/metrics", headers={"authorization": "Bearer read-key"})
        return "inferflux_slow_readers_total 1.0" in answer.text

    await until(is_cut)


async def test_a_reader_that_is_cut_is_told_how_to_go_on_and_cancels_nothing(broker: Broker) -> None:
    async with edge_with_a_talker(broker) as (edge, worker):
        client = await Sleeper.call(edge)
        await until_cut(edge)
        own_buffer = client.own_buffer
        received = await client.read_all()
        # The stated buffer is all that was held for it.
        assert len(received) <= BUFFER + own_buffer
        head, _, stream = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        request_id = worker.runs[0].request.request_id
        assert b'"code":"slow_reader"' in stream and f"/v1/requests/{request_id}/events".encode() in stream
        assert b"[DONE]" not in stream
        assert stream.endswith(b"\r\n0\r\n\r\n")
        events = await events_until(broker, Finished)
        assert not any(isinstance(event, Cancelled) for event in events)
        await until_settled(broker)


async def test_what_a_cut_reader_missed_is_there_to_be_asked_for(broker: Broker) -> None:
    async with edge_with_a_talker(broker) as (edge, worker):
        client = await Sleeper.call(edge, Idempotency_Key="k")
        await until_cut(edge)
        client.close()
        # Where readers have the usual time.
        async with running_edge(broker, replace(CONFIG, edge_id="e2")) as other:
            await until_served(other)
            # The same bytes, as the key is for them alone.
            same = json.dumps(chat(stream=True)).encode()
            headers = {"idempotency-key": "k", "content-type": "application/json"}
            again = await other.client.post("/v1/chat/completions", content=same, headers=headers)
        assert text_of(events_of(again.content)) == PIECE * PIECES
        assert len(worker.runs) == 1


async def test_a_reader_that_is_cut_and_never_reads_on_is_reset(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producer.edge.wire._LINGER_S", 0.1)
    async with edge_with_a_talker(broker) as (edge, _):
        client = await Sleeper.call(edge)
        await until_cut(edge)
        await until(lambda: num_connections(edge) == 1)
        assert b"slow_reader" not in await client.read_all()


async def says_some(run: Run) -> None:
    await run.say(*[PIECE] * 60)
    await run.finish()


async def test_an_answer_that_got_no_further_than_the_buffers_is_kept(broker: Broker) -> None:
    await put_model(broker)
    async with running_worker(broker.worker, says_some) as worker, running_edge(broker) as edge:
        await until_served(edge)
        client = await Sleeper.call(edge, X_InferFlux_On_Disconnect="continue")
        await until(lambda: len(worker.runs) == 1)
        await until_settled(broker)
        client.close()
        await until(lambda: is_counted(edge))
        # Journals are dropped in order: once that of a second call is, the first one's would have been.
        answer = await edge.post(chat(stream=True))
        assert text_of(events_of(answer.content)) == PIECE * 60
        unread, taken = (run.request.request_id for run in worker.runs)

        async def is_dropped() -> bool:
            return await ends_of(broker, taken) == [Cancelled("purged")]

        await until(is_dropped)
        (end,) = await ends_of(broker, unread)
        assert isinstance(end, Finished)


async def is_counted(edge: Edge) -> bool:
    """Whether a call has ended and nobody reads it any more."""
    answer = await edge.client.get("/metrics", headers={"authorization": "Bearer read-key"})
    return any(line.startswith("inferflux_requests_total{") for line in answer.text.splitlines())


async def test_an_answer_was_taken_although_the_next_one_lies_in_the_same_connection(broker: Broker) -> None:
    await put_model(broker)
    async with running_worker(broker.worker, says_some) as worker, running_edge(broker) as edge:
        await until_served(edge)
        client = await Sleeper.call(edge)
        for number in range(1, 5):
            await until(lambda number=number: len(worker.runs) == number)
            await until_settled(broker)
            await client.read_answer()
            await client.ask_again()

        async def are_dropped() -> bool:
            ends = [await ends_of(broker, run.request.request_id) for run in worker.runs[:4]]
            return all(end == [Cancelled("purged")] for end in ends)

        await until(are_dropped)
        client.close()


async def ends_of(broker: Broker, request_id: str) -> list[Event]:
    subject = f"inferflux.tok.*.{request_id}.*"
    records = await read_records(broker.edge, STREAM_TOKENS, subject, is_complete=lambda _: True)
    events = [decode_event(record.payload) for record in records]
    return [event for event in events if isinstance(event, Finished | Cancelled | Failed)]


def num_connections(edge: Edge) -> int:
    """Established ones on the edge's side, by the kernel's table; the client of the test has one of them."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    local = f":{edge.address.port:04X}"
    return sum(1 for line in lines if line[1].endswith(local) and line[3] == "01")


def test_no_piece_is_larger_than_a_buffer_can_take() -> None:
    view = started_view()
    view.say(*["y" * 8] * 5000)
    view.finish()
    writer = StreamWriter(make_call(view))
    pieces = []
    while not writer.is_over:
        pieces.append(writer.take())
        assert writer.is_behind != writer.is_over
    assert text_of(events_of(b"".join(pieces) + writer.end())) == "y" * 8 * 5000
    assert len(pieces) == 10
    assert max(map(len, pieces)) < 5_000


def test_many_choices_do_not_make_a_large_piece_either() -> None:
    views = [started_view() for _ in range(64)]
    for view in views:
        view.say(*["y" * 200] * 100)
        view.finish()
    writer = StreamWriter(make_call(*views))
    pieces = []
    while not writer.is_over:
        assert writer.is_behind
        pieces.append(writer.take())
    assert not writer.is_behind
    assert max(map(len, pieces[1:])) < 16_000
    events = events_of(b"".join(pieces) + writer.end())
    assert all(text_of(events, choice) == "y" * 20_000 for choice in range(64))
