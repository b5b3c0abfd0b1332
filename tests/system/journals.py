"""The journals of a running stack, read back from the broker by the role that may see bodies."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from broker.connection import BrokerConfig, Connection
from broker.records import Record, read_records
from broker.roles import Role
from broker.subjects import STREAM_TOKENS, parse_journal
from schemas.codec import decode_event
from schemas.events import Accepted, Cancelled, Delta, Event, Failed, Finished, Started, Terminal
from schemas.fold import Fold
from tests.system.stack import Stack


@dataclass
class Journal:
    """Every record of one request, and what the fold makes of them."""

    request_id: str
    events: list[tuple[int, Event]] = field(default_factory=list)
    fold: Fold = field(default_factory=Fold)
    # The length of the accepted text at each claim: where the answer was cut, for all but the first.
    claims: list[tuple[Started, int]] = field(default_factory=list)
    # Terminal events as they were stored, and those among them that the fold took: never more than one.
    ends: list[Terminal] = field(default_factory=list)
    accepted_ends: list[Terminal] = field(default_factory=list)

    def feed(self, seq: int, event: Event) -> None:
        self.events.append((seq, event))
        if isinstance(event, Started):
            self.claims.append((event, self.fold.length))
        was_open = self.fold.terminal is None
        self.fold.feed(event, seq)
        if isinstance(event, (Finished, Failed, Cancelled)):
            self.ends.append(event)
        if was_open and self.fold.terminal is not None:
            self.accepted_ends.append(self.fold.terminal)

    @property
    def workers(self) -> list[str]:
        """Who claimed the request, in order."""
        return [started.worker for started, _ in self.claims]

    @property
    def cuts(self) -> list[int]:
        """Number of accepted tokens at each takeover."""
        return [length for _, length in self.claims[1:]]

    @property
    def num_words_of_the_fenced(self) -> int:
        """Stored tokens of a run that was not the current one any more."""
        current, count = "", 0
        for _, event in self.events:
            if isinstance(event, Started):
                current = event.run
            elif isinstance(event, Delta) and event.run != current:
                count += len(event.token_ids)
        return count


class Journals:
    """Reads; the stack's own processes notice nothing."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def read(self, request_id: str) -> Journal:
        journal = Journal(request_id)
        for record in await self._records(f"inferflux.tok.*.{request_id}.*"):
            journal.feed(record.seq, decode_event(record.payload))
        return journal

    async def read_all(self, request_ids: Iterable[str]) -> list[Journal]:
        return [await self.read(request_id) for request_id in request_ids]

    async def accepted(self) -> dict[str, Accepted]:
        """The head of every journal there is, by request id."""
        heads = {}
        for record in await self._records("inferflux.tok.*.*.head"):
            event = decode_event(record.payload)
            assert isinstance(event, Accepted)
            heads[parse_journal(record.subject).request_id] = event
        return heads

    async def holders(self, keys: Iterable[str]) -> dict[str, str]:
        """Worker of the current run, by the Idempotency-Key of the call; without those that nobody holds."""
        key_of = {request_id: head.idempotency_key for request_id, head in (await self.accepted()).items()}
        last: dict[str, Event] = {}
        for record in await self._records("inferflux.tok.*.*.run"):
            last[key_of.get(parse_journal(record.subject).request_id) or ""] = decode_event(record.payload)
        ours = {key: last.get(key) for key in keys}
        return {key: event.worker for key, event in ours.items() if isinstance(event, Started)}

    async def _records(self, subject: str) -> list[Record]:
        return await read_records(self._connection, STREAM_TOKENS, subject, is_complete=lambda _: True)


@asynccontextmanager
async def open_journals(stack: Stack) -> AsyncIterator[Journals]:
    config = BrokerConfig(stack.run["nats"]["url"], Role.INSPECTOR_FULL, "test", stack.data_dir / "nats" / "creds")
    connection = await Connection.open(config)
    try:
        yield Journals(connection)
    finally:
        await connection.close()


def check_one_end(journal: Journal) -> None:
    """Ended once, by a worker, with the whole answer; a repeated write of the same end is the same end."""
    assert len(journal.accepted_ends) == 1, journal.request_id
    [end] = journal.accepted_ends
    assert isinstance(end, Finished), (journal.request_id, end)
    assert all(each == end for each in journal.ends), journal.request_id
    assert end.token_ids == journal.fold.token_ids, journal.request_id
