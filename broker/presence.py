"""A worker's entry in the `workers` bucket: renewed every two seconds, gone by itself six seconds after the last."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from broker.connection import Connection
from broker.errors import BrokerError
from broker.subjects import BUCKET_WORKERS, bucket_subject
from schemas.control import WorkerAdvert

_log = logging.getLogger("inferflux.broker.presence")

PERIOD_S = 2.0
_PUT_S = 2.0


class Presence:
    """Publishes what `advert()` returns. Keeps trying while the broker is away."""

    def __init__(self, connection: Connection, advert: Callable[[], WorkerAdvert]) -> None:
        self._connection = connection
        self._advert = advert
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_failing = False

    async def start(self) -> None:
        """Put the first entry, if the broker takes it now, and go on renewing."""
        self._connection.on_reconnect(self._reconnected)
        await self._put()
        self._task = asyncio.create_task(self._run(), name="presence")

    def update(self) -> None:
        """Something in the entry has changed: put it now."""
        self._changed.set()

    async def announce(self) -> None:
        """Put the entry as it is now, and return when the broker has it, or does not take it."""
        await self._put()

    async def withdraw(self) -> None:
        """Stop renewing and delete the entry. Best effort: it vanishes in any case. Does nothing before `start`."""
        self._connection.remove_on_reconnect(self._reconnected)
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
        subject = bucket_subject(BUCKET_WORKERS, self._advert().id)
        with contextlib.suppress(BrokerError):
            await self._connection.publish_acked(subject, b"", headers={"KV-Operation": "DEL"}, give_up_s=_PUT_S)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PERIOD_S):
                    await self._changed.wait()
            self._changed.clear()
            await self._put()

    async def _reconnected(self) -> None:
        self.update()

    async def _put(self) -> None:
        advert = self._advert()
        try:
            await self._connection.publish_acked(
                bucket_subject(BUCKET_WORKERS, advert.id), advert.model_dump_json().encode(), give_up_s=_PUT_S
            )
        except BrokerError as error:
            if not self._is_failing:
                _log.warning("worker %s is not seen: %s", advert.id, error)
            self._is_failing = True
            return
        if self._is_failing:
            _log.info("worker %s is seen again", advert.id)
        self._is_failing = False
