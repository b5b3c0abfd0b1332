"""Is there room to wait? Counted per model and class; the broker's own cap is the last line of defence."""

from typing import Protocol

from producer.edge.admission import Admission
from producer.edge.calls import LiveCalls
from producer.edge.rates import ServiceRates
from schemas.errors import ErrorCode, ServingError
from schemas.requests import PriorityClass


class Depth(Protocol):
    @property
    def waiting(self) -> int: ...

    @property
    def running(self) -> int: ...


class DepthOf(Protocol):
    async def __call__(self, model: str, priority: PriorityClass) -> Depth: ...


class QueueRoom:
    """At most `queue_max` requests wait; what can start at once does not count as waiting."""

    def __init__(self, depth: DepthOf, rates: ServiceRates) -> None:
        self._depth = depth
        self._rates = rates

    async def __call__(self, admission: Admission) -> None:
        model, priority = admission.model, admission.plan.priority
        waiting = (await self._depth(model.id, priority)).waiting
        excess = waiting + len(admission.plan.prompts) - model.queue_max
        if excess > 0:
            excess -= await self._free_slots(admission)
        if excess > 0:
            raise ServingError(
                ErrorCode.QUEUE_FULL,
                f"The queue of the model '{model.id}' is full: {waiting} requests of class '{priority}' wait.",
                retryable=True,
                retry_after_s=self._rates.time_for(model.id, excess),
            )

    async def _free_slots(self, admission: Admission) -> int:
        slots = sum(served.slots for served in admission.serving)
        running = 0
        for priority in PriorityClass:
            running += (await self._depth(admission.model.id, priority)).running
        return max(slots - running, 0)


class Concurrency:
    """Bounds what one edge holds open."""

    def __init__(self, calls: LiveCalls, max_concurrent: int, rates: ServiceRates) -> None:
        self._calls = calls
        self._max_concurrent = max_concurrent
        self._rates = rates

    async def __call__(self, admission: Admission) -> None:
        if len(self._calls) >= self._max_concurrent:
            raise ServingError(
                ErrorCode.QUEUE_FULL,
                f"This server already holds {self._max_concurrent} calls, as many as it may.",
                retryable=True,
                retry_after_s=self._rates.time_for(admission.model.id, 1),
            )
