"""The autoscaling hints of this edge: asks the broker every few seconds, and tells the metric and administrators."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog

from broker.work_queue import WorkQueue
from producer.autoscale.facts import ClassFacts, Facts
from producer.autoscale.scaler import Hint, Scaler
from producer.config import AutoscaleConfig
from producer.edge.demand import Demand
from producer.edge.models import Models
from producer.edge.retry_after import Line
from producer.edge.waiting import Waiting
from producer.metrics import EdgeMetrics
from schemas.errors import ServingError
from schemas.requests import PriorityClass

_log = structlog.stdlib.get_logger("inferflux.edge.scaling")

_EVERY_S = 5.0


class Scaling:
    """Holds a Scaler for each known model. Used from the edge's loop."""

    def __init__(
        self,
        config: AutoscaleConfig,
        models: Models,
        queue: WorkQueue,
        waiting: Waiting,
        demand: Demand,
        metrics: EdgeMetrics,
    ) -> None:
        self.config = config
        self._models = models
        self._queue = queue
        self._waiting = waiting
        self._demand = demand
        self._metrics = metrics
        self._scalers: dict[str, Scaler] = {}

    async def run(self, announce: Callable[[Mapping[str, int]], Awaitable[None]]) -> None:
        """Keep the hints up to date and tell the other edges whom this one refused, until cancelled."""
        said: Mapping[str, int] = {}
        while True:
            self._demand.news.clear()
            own = self._demand.own()
            if own or said:
                await announce(own)
            said = own
            try:
                await self.hints()
            except ServingError as error:
                _log.info("autoscaling hints are old", error=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_S):
                    await self._demand.news.wait()

    async def hints(self) -> dict[str, Hint]:
        """For every known model, as of now. Raises ServingError(BROKER_UNAVAILABLE)."""
        self._forget_unknown()
        return {model: await self.hint(model) for model in list(self._models.cards)}

    async def hint(self, model: str) -> Hint:
        """For a model that is known. Raises ServingError(BROKER_UNAVAILABLE)."""
        facts = await self._facts(model)
        hint = self._scalers.setdefault(model, Scaler(self.config)).observe(facts)
        self._metrics.workers_desired(model, hint.desired)
        return hint

    async def _facts(self, model: str) -> Facts:
        classes = {priority: await self._class_facts(model, priority) for priority in PriorityClass}
        serving = self._models.serving(model)
        return Facts(
            at=time.monotonic(),
            classes=classes,
            waiting_tokens=sum(self._waiting.tokens(Line(model, priority)) for priority in PriorityClass),
            refused=self._demand.num_refused(model),
            workers=len(serving),
            slots=sum(served.slots for served in serving),
        )

    async def _class_facts(self, model: str, priority: PriorityClass) -> ClassFacts:
        look = await self._queue.look(model, priority)
        age_s = await self._queue.oldest_age_s(model, priority)
        return ClassFacts(look.depth.waiting, look.depth.running, look.num_delivered, age_s)

    def _forget_unknown(self) -> None:
        """A model that is no longer registered wants nobody."""
        for model in [model for model in self._scalers if model not in self._models.cards]:
            del self._scalers[model]
            self._metrics.no_workers_desired(model)
