"""The workers as administrators see them: what the registry has of each, and what it says itself when it is asked."""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from broker.errors import BrokerTimeout, NoResponders, Refused
from broker.registry import Registry
from broker.worker_control import WorkerControl
from schemas.control import WorkerAdvert
from schemas.errors import ErrorCode, ServingError
from schemas.worker_orders import Answer, Describe, Order, WorkerStatus, encode_order

# To somebody who waits for a list; a worker whose loop stands still is shown as one that does not answer.
ANSWER_S = 2.0
_NEWS_S = 2.0
_LOOK_S = 1.0
# What else stands in a message beside the order.
_HEAD_BYTES = 1024


class Member(NamedTuple):
    """A worker. `status` is None when it does not answer, `seen_s_ago` since its entry was last renewed."""

    advert: WorkerAdvert
    seen_s_ago: float
    status: WorkerStatus | None

    def serves(self, model_id: str) -> bool:
        return any(served.id == model_id for served in self.advert.models)


class Fleet:
    """Used by one edge, from its loop."""

    def __init__(self, registry: Registry, control: WorkerControl, max_payload: Callable[[], int]) -> None:
        self._registry = registry
        self._control = control
        self._max_payload = max_payload
        self._news = asyncio.Event()
        registry.on_change(self._wake)

    async def members(self, ids: Collection[str] | None = None) -> list[Member]:
        """All workers, or those of `ids` that are there, in the order of their ids."""
        adverts = [advert for key, advert in sorted(self._registry.workers.items()) if ids is None or key in ids]
        return list(await asyncio.gather(*(self._member(advert) for advert in adverts)))

    def ids(self) -> Sequence[str]:
        return sorted(self._registry.workers)

    async def member(self, worker_id: str) -> Member:
        """Raises ServingError (404)."""
        return await self._member(self.advert(worker_id))

    def advert(self, worker_id: str) -> WorkerAdvert:
        """Raises ServingError (404)."""
        advert = self._registry.workers.get(worker_id)
        if advert is None:
            raise ServingError(ErrorCode.WORKER_NOT_FOUND, f"There is no worker '{worker_id[:200]}'.")
        return advert

    def serving(self, model_id: str) -> Sequence[str]:
        """Ids of the workers that have the model, cordoned ones too."""
        return [
            key
            for key, advert in sorted(self._registry.workers.items())
            if not advert.draining and any(served.id == model_id for served in advert.models)
        ]

    async def order(self, worker_id: str, order: Order, kind: type[Answer], timeout_s: float = ANSWER_S) -> Answer:
        """What the worker answers. It is not waited for any longer once it is gone.

        Raises ServingError: what it refuses, 404 when it is gone, 413, 503 when it does not answer.
        """
        if len(encode_order(order)) > self._max_payload() - _HEAD_BYTES:
            raise ServingError(ErrorCode.PAYLOAD_TOO_LARGE, "This is more than one message to a worker can hold.")
        asking = asyncio.ensure_future(self._control.order(worker_id, order, kind, timeout_s))
        try:
            while not asking.done():
                await asyncio.wait({asking}, timeout=_LOOK_S)
                if not asking.done() and worker_id not in self._registry.workers:
                    raise _gone(worker_id)
            return asking.result()
        except NoResponders:
            raise _gone(worker_id) from None
        except (BrokerTimeout, Refused) as error:
            raise ServingError(
                ErrorCode.WORKER_UNAVAILABLE,
                f"The worker '{worker_id}' does not answer: {error}.",
                retryable=True,
                retry_after_s=2,
            ) from None
        finally:
            asking.cancel()

    async def until(self, worker_id: str, is_so: Callable[[WorkerAdvert | None], bool]) -> None:
        """Wait until the registry has it so; two seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_NEWS_S):
                while not is_so(self._registry.workers.get(worker_id)):
                    await self._news.wait()

    async def _member(self, advert: WorkerAdvert) -> Member:
        status = None
        with contextlib.suppress(ServingError):
            status = await self.order(advert.id, Describe(), WorkerStatus)
        try:
            seen_s_ago = self._registry.seen_s_ago(advert.id)
        except KeyError:  # it left while it was asked
            seen_s_ago = 0.0
        return Member(advert, seen_s_ago, status)

    def _wake(self) -> None:
        # Each wait has its own event, so that no news is missed.
        self._news.set()
        self._news = asyncio.Event()


def _gone(worker_id: str) -> ServingError:
    return ServingError(ErrorCode.WORKER_NOT_FOUND, f"The worker '{worker_id}' is gone.")
