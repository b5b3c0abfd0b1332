import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from nats.aio.msg import Msg

from broker.connection import Connection
from broker.reader import JournalReader, StartAt
from broker.records import get_record, read_records
from broker.roles import Role
from broker.subjects import STREAM_TOKENS, parse_delivery
from tests.conftest import Broker
from tests.support.nats import NatsServer

pytestmark = pytest.mark.nats
_EV = "inferflux.tok.e1.r1.ev"
_ALL = "inferflux.tok.e1.>"


class _Log:
    """What a reader handed over, and waiting for it."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.seqs: list[int] = []
        self._news = asyncio.Event()

    def take(self, subject: str, seq: int, payload: bytes, headers: dict[str, str] | None) -> None:
        self.payloads.append(payload)
        self.seqs.append(seq)
        self._news.set()

    async def until(self, condition: Callable[[list[bytes]], bool]) -> None:
        while not condition(self.payloads):
            self._news.clear()
            await self._news.wait()


def _reader(connection: Connection, log: _Log, start: StartAt, subject: str = _ALL) -> JournalReader:
    return JournalReader(connection, STREAM_TOKENS, subject, log.take, start=start)


async def test_it_hands_over_new_records_of_its_filter_in_order(broker: Broker) -> None:
    await broker.worker.publish_acked(_EV, b"old")
    log = _Log()
    reader = _reader(broker.edge, log, StartAt.new())
    await reader.start()
    assert reader.is_live
    for number in range(500):
        await broker.worker.publish(_EV, b"%d" % number)
        await broker.worker.publish("inferflux.tok.e2.r1.ev", b"other edge")
    await log.until(lambda payloads: len(payloads) == 500)
    assert log.payloads == [b"%d" % number for number in range(500)]
    assert reader.resets == 0
    await reader.close()


async def test_a_replica_that_lags_brings_nothing_twice(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    log = _Log()
    reader = _reader(broker.edge, log, StartAt.new())
    await reader.start()
    for number in range(5):
        await broker.worker.publish_acked(_EV, b"%d" % number)
    await log.until(lambda payloads: len(payloads) == 5)
    real = reader._config

    # A server whose copy of the stream ends before the wanted start begins at that end.
    def config(name: str, inbox: str) -> dict[str, Any]:
        return {**real(name, inbox), "opt_start_seq": 3}

    monkeypatch.setattr(reader, "_config", config)
    await broker.server.restart()
    await broker.worker.publish_acked(_EV, b"5")
    await log.until(lambda payloads: payloads[-1] == b"5")
    assert log.payloads == [b"%d" % number for number in range(6)]
    await reader.close()


async def test_it_starts_where_it_is_told(broker: Broker) -> None:
    for number in range(4):
        await broker.worker.publish_acked(_EV, b"%d" % number)
    await broker.worker.publish_acked(_EV.replace("r1", "r2"), b"4")
    for start, expected in (
        (StartAt.all(), [b"0", b"1", b"2", b"3", b"4"]),
        (StartAt.sequence(3), [b"2", b"3", b"4"]),
        (StartAt.last_per_subject(), [b"3", b"4"]),
        (StartAt.new(), []),
    ):
        log = _Log()
        reader = _reader(broker.edge, log, start)
        await reader.start()
        await reader.caught_up()
        assert log.payloads == expected
        await reader.close()


async def test_a_burst_is_taken_whole(broker: Broker) -> None:
    log, count = _Log(), 3000
    reader = _reader(broker.edge, log, StartAt.new())
    await reader.start()
    for number in range(count):
        await broker.worker.publish(_EV, b"%d " % number + b"x" * 1000)
    await log.until(lambda payloads: len(payloads) == count)
    assert [int(payload.split()[0]) for payload in log.payloads] == list(range(count))
    assert reader.resets == 0
    assert broker.edge.num_overrun == 0
    await reader.close()


class _LeakyReader(JournalReader):
    """Misses one message of each generation, the tenth."""

    def _take(self, message: Msg) -> None:
        if not message.reply or parse_delivery(message.reply).consumer_seq != 10:
            super()._take(message)


async def test_what_was_missed_is_read_again(broker: Broker) -> None:
    log, count = _Log(), 60
    reader = _LeakyReader(broker.edge, STREAM_TOKENS, _ALL, log.take, start=StartAt.new())
    await reader.start()
    for number in range(count):
        await broker.worker.publish(_EV, b"%d" % number)
    await log.until(lambda payloads: len(payloads) == count)
    assert [int(payload) for payload in log.payloads] == list(range(count))
    assert reader.resets > 0
    await reader.close()


async def test_nothing_is_lost_or_doubled_over_kills_of_the_broker(broker: Broker) -> None:
    log = _Log()
    reader = _reader(broker.edge, log, StartAt.new())
    await reader.start()
    for number in range(60):
        if number % 20 == 10:
            await broker.server.restart()
        await broker.worker.publish_acked(_EV, b"%d" % number)
    await log.until(lambda payloads: b"59" in payloads)
    # An acked publish that was tried again may be stored twice; the reader adds nothing and leaves nothing out.
    assert sorted(set(log.seqs)) == log.seqs
    stored = await read_records(broker.edge, STREAM_TOKENS, _ALL, is_complete=lambda _: True)
    assert [record.seq for record in stored] == log.seqs
    assert reader.resets >= 3
    await reader.close()


async def test_a_record_between_restart_and_first_record_is_not_missed(broker: Broker) -> None:
    log = _Log()
    reader = _reader(broker.edge, log, StartAt.new())
    await reader.start()
    await broker.server.kill()
    await broker.server.start()
    await broker.worker.wait_connected(10)
    await broker.worker.publish_acked(_EV, b"x")
    await log.until(bool)
    assert log.payloads == [b"x"]
    await reader.close()


async def test_a_consumer_that_vanishes_is_replaced(broker: Broker) -> None:
    log = _Log()
    reader = _reader(broker.edge, log, StartAt.new())
    await reader.start()
    names = (await broker.topology.api(f"CONSUMER.NAMES.{STREAM_TOKENS}"))["consumers"]
    await broker.topology.api(f"CONSUMER.DELETE.{STREAM_TOKENS}.{names[0]}")
    await broker.worker.publish_acked(_EV, b"x")
    await log.until(bool)
    assert reader.resets == 1
    await reader.close()


async def test_it_waits_for_a_stream_that_does_not_exist_yet(nats_server: NatsServer) -> None:
    edge = await nats_server.connect(Role.EDGE)
    log = _Log()
    reader = _reader(edge, log, StartAt.new())
    starting = asyncio.create_task(reader.start())
    await asyncio.sleep(0.1)
    assert not starting.done() and not reader.is_live
    topology = await nats_server.connect(Role.TOPOLOGY)
    await topology.api(f"STREAM.CREATE.{STREAM_TOKENS}", {"name": STREAM_TOKENS, "subjects": ["inferflux.tok.>"]})
    await starting
    assert reader.is_live
    await reader.close()


async def test_a_stream_made_anew_is_read_from_its_beginning(broker: Broker) -> None:
    for _ in range(5):
        await broker.worker.publish_acked(_EV, b"old")
    log = _Log()
    recreated = asyncio.Event()
    reader = JournalReader(broker.edge, STREAM_TOKENS, _ALL, log.take, start=StartAt.all(), on_recreated=recreated.set)
    await reader.start()
    await reader.caught_up()
    await broker.topology.api(f"STREAM.DELETE.{STREAM_TOKENS}")
    await broker.apply()
    await broker.worker.publish_acked(_EV, b"new")
    await log.until(lambda payloads: payloads[-1] == b"new")
    assert recreated.is_set()
    assert log.seqs[-1] == 1
    await reader.close()


async def test_a_callback_that_fails_does_not_end_the_reader(broker: Broker) -> None:
    log = _Log()

    def take(subject: str, seq: int, payload: bytes, headers: dict[str, str] | None) -> None:
        if payload == b"bad":
            raise RuntimeError("bad record")
        log.take(subject, seq, payload, headers)

    reader = JournalReader(broker.edge, STREAM_TOKENS, _ALL, take, start=StartAt.new())
    await reader.start()
    await broker.worker.publish_acked(_EV, b"bad")
    await broker.worker.publish_acked(_EV, b"good")
    await log.until(bool)
    assert log.payloads == [b"good"]
    await reader.close()


async def test_closing_leaves_no_consumer_behind(broker: Broker) -> None:
    reader = _reader(broker.edge, _Log(), StartAt.new())
    await reader.start()
    await reader.close()
    await broker.edge.flush()
    assert (await broker.topology.api(f"CONSUMER.NAMES.{STREAM_TOKENS}"))["consumers"] in (None, [])


async def test_records_are_read_back_over_many_batches(broker: Broker) -> None:
    for number in range(2500):
        await broker.worker.publish(_EV, b"%d" % number)
    await broker.worker.publish_acked(_EV, b"2500")
    await broker.worker.publish_acked("inferflux.tok.e1.r2.ev", b"other")
    records = await read_records(
        broker.edge, STREAM_TOKENS, "inferflux.tok.e1.r1.*", is_complete=lambda found: len(found) == 2501
    )
    assert [record.payload for record in records] == [b"%d" % number for number in range(2501)]


async def test_reading_waits_until_the_answer_is_complete(broker: Broker) -> None:
    reading = asyncio.create_task(
        read_records(broker.edge, STREAM_TOKENS, "inferflux.tok.e1.r1.*", is_complete=lambda found: len(found) == 2)
    )
    await broker.worker.publish_acked(_EV, b"0")
    await broker.worker.publish_acked(_EV, b"1")
    assert [record.payload for record in await reading] == [b"0", b"1"]


async def test_the_last_record_of_a_subject_comes_from_the_leader(broker: Broker) -> None:
    assert await get_record(broker.edge, STREAM_TOKENS, {"last_by_subj": _EV}) is None
    await broker.worker.publish_acked(_EV, b"0")
    await broker.worker.publish_acked(_EV, b"\x00\xff")
    record = await get_record(broker.edge, STREAM_TOKENS, {"last_by_subj": _EV})
    assert record is not None
    assert (record.subject, record.seq, record.payload) == (_EV, 2, b"\x00\xff")
    assert record.stored_at > 1_700_000_000
