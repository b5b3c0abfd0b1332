"""Which deliveries no worker has: asked of the workers, since the broker does not tell whom it delivered to."""

import asyncio
import logging
import time
from collections.abc import Collection, Mapping

from broker.errors import BrokerTimeout, NoResponders
from broker.registry import Registry
from broker.worker_control import WorkerControl
from schemas.control import WorkerAdvert

_log = logging.getLogger("inferflux.broker.holders")

# A worker that drains has withdrawn its entry and may still have work in hand.
_LEAVING_S = 60.0


class Holders:
    """Asks every worker that the registry tells of or told of a minute ago. Used by one edge, from its loop."""

    def __init__(self, registry: Registry, control: WorkerControl) -> None:
        self._registry = registry
        self._control = control
        self._present: Mapping[str, WorkerAdvert] = {}
        self._left: dict[str, tuple[float, WorkerAdvert]] = {}
        registry.on_change(self._note)
        self._note()

    async def unheld(self, model: str, seqs: Collection[int]) -> set[int]:
        """Those of the deliveries, by stream sequence, that nobody who serves the model has in hand.

        None of them while a worker does not answer: slow is not dead, and it may be the one.
        """
        known = {worker_id: advert for worker_id, (_, advert) in self._left.items()} | dict(self._present)
        asked = [worker_id for worker_id, advert in known.items() if _serves(advert, model)]
        answers = await asyncio.gather(*(self._held(worker_id, seqs) for worker_id in asked))
        held = [answer for answer in answers if answer is not None]
        return set(seqs).difference(*held) if len(held) == len(asked) else set()

    async def _held(self, worker_id: str, seqs: Collection[int]) -> set[int] | None:
        """None when it does not say."""
        try:
            return await self._control.held(worker_id, seqs)
        except NoResponders:
            self._left.pop(worker_id, None)
            return set()
        except BrokerTimeout as error:
            _log.debug("worker %s: %s", worker_id, error)
            return None

    def _note(self) -> None:
        now, workers = time.monotonic(), dict(self._registry.workers)
        for worker_id in self._present.keys() - workers.keys():
            self._left[worker_id] = (now, self._present[worker_id])
        self._present = workers
        oldest = now - _LEAVING_S
        self._left = {
            worker_id: (at, advert)
            for worker_id, (at, advert) in self._left.items()
            if at > oldest and worker_id not in workers
        }


def _serves(advert: WorkerAdvert, model: str) -> bool:
    return any(served.id == model for served in advert.models)
