"""Keeps the leases of lines that are at hand, however long they take."""

import asyncio
import contextlib
from collections.abc import Iterator

from broker.delivered import Delivered

_ROUND_S = 2.0


class Holding:
    """One task for all leases; with none it sleeps."""

    def __init__(self) -> None:
        self._leases: set[Delivered] = set()
        self._some = asyncio.Event()

    @contextlib.contextmanager
    def hold(self, lease: Delivered) -> Iterator[None]:
        self._leases.add(lease)
        self._some.set()
        try:
            yield
        finally:
            self._leases.discard(lease)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if not self._leases:
                self._some.clear()
                await self._some.wait()
            await asyncio.sleep(_ROUND_S)
            for lease in list(self._leases):
                if lease.needs_renewal:
                    await lease.renew()
