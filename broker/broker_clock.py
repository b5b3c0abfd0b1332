"""The broker's clock, as an edge can know it: edges that count together must agree on the time, whatever their own
machines say.
"""

import asyncio
import time
from datetime import datetime

from broker.connection import Connection
from broker.counters import Counters
from broker.errors import BrokerError, BrokerUnavailable
from broker.subjects import STREAM_LIMITS, clock_counter

_SAMPLES = 3
_ATTEMPT_S = 1.0
_PATIENCE_S = 2.0
_RETRY_S = 0.05


class BrokerClock:
    """Between two readings it goes with this machine's monotonic clock. `error_s` bounds how far a reading was off."""

    def __init__(self, connection: Connection, counters: Counters, edge_id: str) -> None:
        self._connection = connection
        self._counters = counters
        self._subject = clock_counter(edge_id)
        self._offset_s = 0.0
        self.error_s = 0.0
        self.read_at: float | None = None

    def now(self) -> float:
        """Unix time in seconds. Only after a first reading."""
        return time.monotonic() + self._offset_s

    async def read(self) -> None:
        """Compare the clocks. Raises BrokerUnavailable."""
        samples = await self._samples()
        # Whichever had the shortest way is the surest.
        self.error_s, self._offset_s = min(samples)
        self.read_at = time.monotonic()

    async def _samples(self) -> list[tuple[float, float]]:
        """A stream that was created a moment ago is written to before it can be read: tried again for a while."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return [await self._sample() for _ in range(_SAMPLES)]
            except BrokerError as error:
                if time.monotonic() >= deadline:
                    raise BrokerUnavailable(f"the broker's clock cannot be read: {error}") from error
            await asyncio.sleep(_RETRY_S)

    async def _sample(self) -> tuple[float, float]:
        before = time.monotonic()
        seq = await self._counters.touch(self._subject)
        after = time.monotonic()
        subject = f"$JS.API.DIRECT.GET.{STREAM_LIMITS}.{self._subject}"
        headers = (await self._connection.request(subject, b"", _ATTEMPT_S)).headers or {}
        if int(headers.get("Nats-Sequence", "0")) < seq:
            raise BrokerUnavailable("a replica lags behind")
        stored_at = datetime.fromisoformat(headers["Nats-Time-Stamp"]).timestamp()
        return (after - before) / 2, stored_at - (before + after) / 2
