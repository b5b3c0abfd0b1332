"""Counters that all edges share (ADR-49): adding is one publish, and its answer is the new total.

Additions commute, so there is nothing to retry on a conflict, and the totals that come back are an order: of all that
add at once, each knows how much came before it.
"""

import asyncio
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from broker.connection import Connection
from broker.errors import ApiError, BrokerError, BrokerTimeout, BrokerUnavailable, NoResponders, StreamMissing
from broker.inbox import status
from broker.outcomes import as_final, is_transient, parse_answer
from broker.subjects import STREAM_LIMITS

_ATTEMPT_S = 1.0
_RETRY_S = 0.05
_NOT_FOUND = "404"


class _Counted(NamedTuple):
    seq: int
    total: int


class Counters:
    """Shared by all that counts in an edge. `births` goes up when the counters of minutes were lost with the broker."""

    def __init__(self, connection: Connection, *, give_up_s: float = 5.0) -> None:
        self._connection = connection
        self._give_up_s = give_up_s
        self._last_seq = 0
        self._num_reconnects = connection.reconnects
        self.births = 0

    async def add(self, changes: Mapping[str, int]) -> dict[str, int]:
        """Add to each subject's counter, all at once; the totals after that, by subject.

        What is added upwards is tried again until its outcome is known, so that it may count twice; what is added
        downwards is tried once. Either way a counter is never lower than it should be. Raises BrokerUnavailable.
        """
        if len(changes) == 1:
            [(subject, amount)] = changes.items()
            return {subject: await self._add(subject, amount)}
        totals = await asyncio.gather(*(self._add(subject, amount) for subject, amount in changes.items()))
        return dict(zip(changes, totals, strict=True))

    async def totals(self, stream: str, subjects: Iterable[str]) -> dict[str, int]:
        """The totals that a replica has, by subject; what was added a moment ago may be missing in a cluster.

        `subjects` may be wildcards; those without a counter are left out. Raises BrokerUnavailable.
        """
        query = json.dumps({"multi_last": list(subjects)}).encode()
        try:
            *messages, end = await self._connection.collect(f"$JS.API.DIRECT.GET.{stream}", query, _ATTEMPT_S)
        except BrokerError as error:
            raise BrokerUnavailable(f"the counters cannot be read: {error}") from error
        code = status(end)
        if code == _NOT_FOUND:
            return {}
        if code != "204":
            raise BrokerUnavailable(f"the counters cannot be read: {code} {(end.headers or {}).get('Description')}")
        return {message.headers["Nats-Subject"]: parse_total(message.data) for message in messages if message.headers}

    async def touch(self, subject: str) -> int:
        """Add nothing; the sequence of the message that says so. One attempt. Raises BrokerError."""
        return (await self._publish(subject, 0)).seq

    async def _add(self, subject: str, amount: int) -> int:
        deadline = time.monotonic() + self._give_up_s
        while True:
            try:
                await self._connection.wait_connected(deadline - time.monotonic())
                return (await self._publish(subject, amount)).total
            except (NoResponders, BrokerTimeout, ApiError) as error:
                if isinstance(error, ApiError) and not is_transient(error):
                    raise BrokerUnavailable(f"not counted: {as_final(error)}") from error
                if amount < 0 or time.monotonic() + _RETRY_S > deadline:
                    kind = StreamMissing if isinstance(error, NoResponders) else BrokerUnavailable
                    raise kind(f"not counted: {error}") from error
            await asyncio.sleep(_RETRY_S)

    async def _publish(self, subject: str, amount: int) -> _Counted:
        headers = {"Nats-Incr": f"{amount:+d}"}
        message = await self._connection.request(subject, b"", _ATTEMPT_S, headers=headers)
        answer: dict[str, Any] = parse_answer(message.data)
        counted = _Counted(answer["seq"], int(answer["val"]))
        if answer["stream"] == STREAM_LIMITS:
            self._note_seq(counted.seq)
        return counted

    def _note_seq(self, seq: int) -> None:
        # A stream that was lost with the broker begins again at 1. Without a reconnection answers are only unordered.
        if self._num_reconnects != self._connection.reconnects:
            self._num_reconnects = self._connection.reconnects
            if seq < self._last_seq:
                self.births += 1
                self._last_seq = 0
        self._last_seq = max(self._last_seq, seq)


def parse_total(body: bytes) -> int:
    """The total in a counter's message."""
    return int(json.loads(body)["val"])
