"""A call while it lives in this edge: one part for each prompt, followed by any number of readers."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple, Protocol

from producer.edge.errors import error_of
from producer.edge.shapes import Header
from schemas.errors import ServingError
from schemas.events import Cancelled, Failed, Progress, Started
from schemas.fold import Fold
from schemas.requests import Identity, PriorityClass
from schemas.tracing import NO_SPAN, Span


class View(Protocol):
    """A journal as it is folded, live."""

    @property
    def fold(self) -> Fold: ...

    @property
    def progress(self) -> Progress | None: ...

    @property
    def last_activity(self) -> float:
        """Monotonic time of the last record."""

    async def changed(self, length: int, timeout_s: float | None) -> bool:
        """Wait until more than `length` tokens are known, or the end, or other news; False when time ran out."""

    def close(self) -> None: ...


class Superseded(Exception):
    """Somebody else, here or at another edge, used the idempotency key a moment earlier; that call is to be joined."""


class OnDisconnect(StrEnum):
    CANCEL = "cancel"
    CONTINUE = "continue"


@dataclass(slots=True, eq=False)
class Part:
    """One sequence. `seq` is its place in the request stream; None before it is queued, once withdrawn, and when
    another edge owns it.

    `edge` owns its journal. `handed_back_at` is when a delivery was last given back in a worker's stead: that of
    `handed_back_run`, or one that nobody had claimed. `is_accepted` and `is_sent` are set before the journal record and
    the request are published, since an unknown outcome counts as done.
    """

    request_id: str
    edge: str
    view: View
    seq: int | None = None
    started: Started | None = None
    started_at: float | None = None
    handed_back_run: str | None = None
    handed_back_at: float = 0.0
    asked_at: float = 0.0
    is_accepted: bool = False
    is_sent: bool = False

    @property
    def is_over(self) -> bool:
        return self.view.fold.terminal is not None

    @property
    def is_unclaimed(self) -> bool:
        """Whether it is open and no run is in charge of it."""
        started = self.view.fold.started
        return not self.is_over and (started is None or started.run == self.handed_back_run)

    @property
    def unclaimed_since(self) -> float:
        """No earlier than this did it lose its run, if it ever had one."""
        return max(self.view.last_activity, self.handed_back_at)

    def note_start(self) -> bool:
        """Remember the run in charge; True when it is the first one seen."""
        started = self.view.fold.started
        if started is None or started is self.started:
            return False
        self.started = started
        if self.started_at is not None:
            return False
        self.started_at = time.monotonic()
        return True


class Place(NamedTuple):
    """Where a call was in the queue of its class when it was last looked for, and the deliveries of that by then."""

    position: int
    num_delivered: int


@dataclass(slots=True, eq=False)
class Call:
    """What one HTTP call asked for. `header` renders its answers; times are monotonic.

    `failure` is set when the edge ends the call although the journal cannot say so (broker away). `published` is set
    once the outcome of the submission is known. `is_followed`: read from journals; this edge counts nothing.
    `is_counted`: it has ended, and the numbers say so. `kept_until` is set while its text, which is nowhere else, stays
    here for a reader who may come back. `prompt_facts` are what the audit says of the prompt. `key_digest` is of
    the API key that it was made with, if any; `is_revoked`: that holds no longer. `bill` settles what the call has
    taken from its limits, None once it did. `span` is that of the HTTP call which brought it. `is_stored`: its answer
    is kept elsewhere, so that nobody will ask for it again.
    """

    header: Header
    identity: Identity
    priority: PriorityClass
    parts: list[Part]
    include_usage: bool
    accepted_at: float
    deadline_at: float
    on_disconnect: OnDisconnect
    body_hash: str = ""
    idempotency_key: str | None = None
    num_readers: int = 0
    place: Place | None = None
    delivered: bool = False
    cancelled: bool = False
    deadline_noted: bool = False
    first_token_at: float | None = None
    failure: ServingError | None = None
    retired: bool = False
    is_followed: bool = False
    is_journaled: bool = True
    is_counted: bool = False
    kept_until: float | None = None
    key_digest: bytes | None = field(default=None, repr=False)
    is_revoked: bool = False
    is_stored: bool = False
    published: asyncio.Event = field(default_factory=asyncio.Event)
    labels: dict[str, str] = field(default_factory=dict)
    prompt_facts: dict[str, str | int] = field(default_factory=dict)
    bill: Callable[[], None] | None = None
    span: Span = NO_SPAN

    @property
    def request_id(self) -> str:
        return self.header.request_id

    @property
    def model(self) -> str:
        return self.header.model

    @property
    def is_over(self) -> bool:
        return all(part.is_over for part in self.parts)

    @property
    def is_readable(self) -> bool:
        """Whether its text can be had here: of a call that was not journaled only the edge that took it has any."""
        return self.is_journaled or not self.is_followed

    @property
    def has_started(self) -> bool:
        return any(part.started_at is not None or part.view.fold.started is not None for part in self.parts)

    @property
    def has_output(self) -> bool:
        """Whether the status of a stream can be decided: a first token, or an end."""
        return self.failure is not None or self.has_tokens or any(part.is_over for part in self.parts)

    @property
    def has_tokens(self) -> bool:
        return any(part.view.fold.length > 0 for part in self.parts)

    @property
    def is_settled(self) -> bool:
        """Whether a whole answer can be given, or none any more."""
        return self.failure is not None or self.is_over or self.first_failure is not None

    @property
    def first_failure(self) -> ServingError | None:
        """What a part ended with; the others are cancelled for it, which says nothing."""
        ends = [part.view.fold.terminal for part in self.parts]
        failures = [end for end in ends if isinstance(end, Failed | Cancelled)]
        return error_of(min(failures, key=lambda end: isinstance(end, Cancelled))) if failures else None

    @property
    def fingerprint(self) -> str | None:
        """Of the model that answers; None before a worker has claimed the first part."""
        for part in self.parts:
            if part.view.fold.fingerprint is not None:
                return part.view.fold.fingerprint
        return None

    def rendered_header(self) -> Header:
        return replace(self.header, fingerprint=self.fingerprint)

    def open_parts(self) -> Iterator[Part]:
        return (part for part in self.parts if not part.is_over)

    def close(self) -> None:
        for part in self.parts:
            part.view.close()


class LiveCalls:
    """The calls of this edge that are not over and done with, by request id. Those set aside do not count as open.

    `max_parts` bounds what an edge may hold, counted in parts; who adds a call asks `is_full` before.
    """

    def __init__(self, max_parts: int) -> None:
        self._max_parts = max_parts
        self._calls: dict[str, Call] = {}
        self._aside: dict[str, Call] = {}
        self.num_parts = 0

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def is_full(self) -> bool:
        return self.num_parts >= self._max_parts

    def __iter__(self) -> Iterator[Call]:
        return iter([*self._calls.values(), *self._aside.values()])

    def ages(self, model: str, now: float) -> list[float]:
        """Seconds since their start of the model's requests that run; of this edge's own calls. `now` is monotonic."""
        return [
            now - part.started_at
            for call in self._calls.values()
            if call.model == model and not call.is_followed
            for part in call.open_parts()
            if part.started_at is not None
        ]

    def get(self, request_id: str) -> Call | None:
        return self._calls.get(request_id) or self._aside.get(request_id)

    def add(self, call: Call) -> None:
        assert call.request_id not in self._calls, "already there"
        self._calls[call.request_id] = call
        self.num_parts += len(call.parts)

    def set_aside(self, call: Call) -> None:
        self._aside[call.request_id] = call
        self._close(call)

    def remove(self, call: Call) -> None:
        if self._aside.get(call.request_id) is call:
            del self._aside[call.request_id]
        self._close(call)

    def _close(self, call: Call) -> None:
        if self._calls.get(call.request_id) is call:
            del self._calls[call.request_id]
            self.num_parts -= len(call.parts)
