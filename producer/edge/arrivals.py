"""Calls on their way in: how many this edge holds, and how many bytes of bodies until their requests are queued."""

from collections.abc import Iterator
from contextlib import contextmanager

from producer.edge.calls import LiveCalls
from producer.edge.retry_after import RetryAfter
from schemas.errors import ErrorCode, ServingError


class Arrivals:
    """Turns calls away at the door: before their body is read, or where it would be one byte too many.

    A call counts here from its headers until it is among the live calls, and its body until it is queued.
    """

    def __init__(self, calls: LiveCalls, max_held: int, max_bytes: int, retry_after: RetryAfter) -> None:
        self._calls = calls
        self._max_held = max_held
        self._max_bytes = max_bytes
        self._retry_after = retry_after
        self._num_arriving = 0
        self._num_bytes = 0

    @contextmanager
    def enter(self) -> Iterator["Arrival"]:
        """Raises ServingError (429) when the edge holds as many calls as it may."""
        self._take_place()
        arrival = Arrival(self)
        try:
            yield arrival
        finally:
            self._num_arriving -= arrival.num_places
            self._num_bytes -= arrival.num_bytes

    def _take_place(self) -> None:
        if self._calls.num_parts + self._num_arriving >= self._max_held:
            raise self._refusal(f"This server already holds {self._max_held} calls, as many as it may.")
        self._num_arriving += 1

    def _take_places(self, number: int, arrival: "Arrival") -> None:
        held = self._calls.num_parts + self._num_arriving - arrival.num_places
        # One that is larger than all there may be passes when it is alone: else it never could.
        if held > 0 and held + number > self._max_held:
            raise self._refusal(f"This server has no room for {number} prompts; it holds {self._max_held} at most.")
        self._num_arriving += number - arrival.num_places
        arrival.num_places = number

    def _take_bytes(self, number: int, arrival: "Arrival") -> None:
        if self._num_bytes + number > self._max_bytes:
            raise self._refusal(f"This server is reading {self._max_bytes} bytes of requests, as many as it may.")
        self._num_bytes += number
        arrival.num_bytes += number

    def _refusal(self, message: str) -> ServingError:
        seconds = self._retry_after.seconds_at_the_door()
        return ServingError(ErrorCode.QUEUE_FULL, message, retryable=True, retry_after_s=seconds)


class Arrival:
    """One call on its way in, and what it takes up. Only inside `Arrivals.enter`."""

    __slots__ = ("_arrivals", "num_bytes", "num_places")

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self.num_places = 1
        self.num_bytes = 0

    def take_bytes(self, number: int) -> None:
        """So many more bytes of the body are there. Raises ServingError (429) when there is no room for them."""
        self._arrivals._take_bytes(number, self)

    def take_places(self, number: int) -> None:
        """The call has so many prompts. Raises ServingError (429) when the edge cannot hold them."""
        self._arrivals._take_places(number, self)
