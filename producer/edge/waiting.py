"""The books of what waits in the queue: what this edge has put there, and what the other edges say they have.

The broker tells how many requests of a class wait, but not those submitted since it was asked, and never how large they
are. Each edge knows both of its own requests: submitted and not started yet. Edges tell each other their sums.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple

import structlog

from broker.edge_waiting import WaitingTokens
from producer.edge.calls import Call, Part
from producer.edge.retry_after import Line
from schemas.requests import PriorityClass

_log = structlog.stdlib.get_logger("inferflux.edge.waiting")

# A request may take the broker so long, after it was acknowledged, to show in a depth.
SETTLED_S = 0.01
# Sums are told when they changed, at most this often, and again while they are not zero.
_PAUSE_S = 0.25
_REPEAT_S = 1.0
# An edge that is silent has nothing waiting, or is gone.
_SILENT_S = 3.0
_MAX_EDGES = 1024
# No depth that is still looked at is older than this by far.
_KEPT_S = 2.0


class Ticket:
    """Room in the queue given to one call at its admission: a number of prompt tokens for each of its requests.

    Its owner calls `follow` once there is a call, and in the end either `submitted` or `release`.
    """

    __slots__ = ("_book", "_call", "_tokens", "is_submitted", "num_requests")

    def __init__(self, book: "_Book", tokens: Sequence[int]) -> None:
        self._book = book
        self._tokens = list(tokens)
        self._call: Call | None = None
        self.num_requests = len(self._tokens)
        self.is_submitted = False

    def follow(self, call: Call) -> None:
        """These are the requests: from now on they are watched until each has started or ended."""
        self._call = call

    def submitted(self) -> None:
        """All of them are in the queue."""
        self._book.note_submitted(self)

    def release(self) -> None:
        """They will not be in the queue, or their end has been written."""
        self._book.release(self)

    @property
    def num_tokens(self) -> int:
        return sum(self._tokens)

    def drop_started(self) -> int:
        """Take out the tokens of requests that wait no longer; how many these were."""
        call = self._call
        if call is None:
            return 0
        before = self.num_tokens
        for index, part in enumerate(call.parts):
            if call.retired or not _waits(part):
                self._tokens[index] = 0
        return before - self.num_tokens


def _waits(part: Part) -> bool:
    return part.started_at is None and part.view.fold.started is None and not part.is_over


class _Book:
    """What this edge has given away of one line. `submitted` is when how many requests were acknowledged, in order."""

    __slots__ = ("num_pending", "submitted", "tickets", "tokens")

    def __init__(self) -> None:
        self.tickets: dict[Ticket, None] = {}
        self.tokens = 0
        self.num_pending = 0
        self.submitted: deque[tuple[float, int]] = deque()

    @property
    def is_empty(self) -> bool:
        return not self.tickets and not self.submitted and self.num_pending == 0

    def add(self, ticket: Ticket) -> None:
        self.tickets[ticket] = None
        self.tokens += ticket.num_tokens
        self.num_pending += ticket.num_requests

    def note_submitted(self, ticket: Ticket) -> None:
        if ticket in self.tickets and not ticket.is_submitted:
            ticket.is_submitted = True
            self.num_pending -= ticket.num_requests
            self.submitted.append((time.monotonic(), ticket.num_requests))
            self.forget_old()

    def release(self, ticket: Ticket) -> None:
        if ticket in self.tickets:
            del self.tickets[ticket]
            self.tokens -= ticket.num_tokens
            if not ticket.is_submitted:
                self.num_pending -= ticket.num_requests

    def num_unseen(self, asked_at: float) -> int:
        number = self.num_pending
        for submitted_at, count in reversed(self.submitted):
            if submitted_at + SETTLED_S <= asked_at:
                break
            number += count
        return number

    def forget_old(self) -> None:
        oldest = time.monotonic() - _KEPT_S
        while self.submitted and self.submitted[0][0] < oldest:
            self.submitted.popleft()

    def drop_started(self) -> None:
        for ticket in list(self.tickets):
            self.tokens -= ticket.drop_started()
            # Before it is submitted its requests count, even if one of several has started already.
            if ticket.is_submitted and ticket.num_tokens == 0:
                del self.tickets[ticket]


class _Said(NamedTuple):
    """What an edge said last."""

    at: float
    tokens: WaitingTokens


class Waiting:
    """Used from the edge's loop; nothing here awaits between looking and booking but `announce`.

    Bounded: a ticket for each call that waits, a line for each model and class with any.
    """

    def __init__(self, edge_id: str) -> None:
        self._edge_id = edge_id
        self._books: dict[Line, _Book] = {}
        self._others: dict[str, _Said] = {}
        self._changed = asyncio.Event()

    def admit(self, line: Line, tokens: Sequence[int]) -> Ticket:
        """Give a call room: `tokens` for each of its requests, each at least one."""
        book = self._books.setdefault(line, _Book())
        ticket = Ticket(book, tokens)
        book.add(ticket)
        self._changed.set()
        return ticket

    def num_unseen(self, line: Line, asked_at: float) -> int:
        """Requests of this edge that may not be in a depth the broker was asked for at `asked_at` (monotonic)."""
        book = self._books.get(line)
        return 0 if book is None else book.num_unseen(asked_at)

    def tokens(self, line: Line) -> int:
        """Prompt tokens waiting, of all edges: our own as of the last `drop_started`, the others' as they said."""
        book = self._books.get(line)
        own = 0 if book is None else book.tokens
        return own + sum(said.tokens.get(line, 0) for said in self._living())

    def num_edges(self, line: Line) -> int:
        """How many edges have requests waiting, this one counted in any case."""
        return 1 + sum(1 for said in self._living() if said.tokens.get(line, 0) > 0)

    def drop_started(self, line: Line) -> None:
        """Take what has started or ended off the books. It costs a look at each request that waits."""
        book = self._books.get(line)
        if book is not None:
            book.drop_started()

    def heard(self, edge_id: str, tokens: WaitingTokens) -> None:
        """Another edge says what it has waiting."""
        if edge_id == self._edge_id:
            return
        self._forget_silent()
        if len(self._others) >= _MAX_EDGES and edge_id not in self._others:
            _log.warning("more edges than can be", edge=edge_id)
            return
        self._others[edge_id] = _Said(time.monotonic(), tokens)

    async def run(self, announce: Callable[[WaitingTokens], Awaitable[None]]) -> None:
        """Keep the books and tell the others, until cancelled."""
        said: WaitingTokens = {}
        said_at = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PAUSE_S if self._books else None):
                    await self._changed.wait()
            self._changed.clear()
            now, tokens = time.monotonic(), self._tidy()
            if tokens != said or (tokens and now - said_at >= _REPEAT_S):
                await announce(tokens)
                said, said_at = tokens, now
            await asyncio.sleep(_PAUSE_S)

    def _tidy(self) -> dict[tuple[str, PriorityClass], int]:
        """Drop what waits no longer; the sums that are left."""
        for line, book in list(self._books.items()):
            book.drop_started()
            book.forget_old()
            if book.is_empty:
                del self._books[line]
        return {line: book.tokens for line, book in self._books.items() if book.tokens > 0}

    def _living(self) -> Iterable[_Said]:
        oldest = time.monotonic() - _SILENT_S
        return (said for said in self._others.values() if said.at >= oldest)

    def _forget_silent(self) -> None:
        oldest = time.monotonic() - _SILENT_S
        for edge_id in [edge_id for edge_id, said in self._others.items() if said.at < oldest]:
            del self._others[edge_id]
