"""The configuration read again while the edge runs: keys, limits, guardrails, tokens and levels change at once.

Running streams go on, but for those of keys that are gone. What cannot be used changes nothing.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import structlog

from producer.config import EdgeConfig
from producer.edge.services import Services
from producer.metrics import FAILED, OK
from producer.policy.callers import require_callers
from producer.policy.errors import NoKeys
from schemas.audit import AuditEvent, Outcome

_log = structlog.stdlib.get_logger("inferflux.edge.reload")


class ConfigUnusable(Exception):
    """What stands in the sources of the configuration now cannot be used. One line that names it."""


class Reread(NamedTuple):
    """`needs_restart` names what has changed since the start and cannot change while running.

    `apply` makes hold what the process has beside the edge; it cannot fail.
    """

    config: EdgeConfig
    needs_restart: tuple[str, ...]
    apply: Callable[[], None]


class Reloading(NamedTuple):
    """`read` blocks, and raises ConfigUnusable. `follow(ask)` runs until cancelled and asks when a source changes."""

    read: Callable[[], Reread]
    follow: Callable[[Callable[[], None]], Coroutine[Any, Any, None]]


class Reloader:
    """Reads again when asked, once for any number of askings meanwhile."""

    def __init__(self, services: Services, read: Callable[[], Reread]) -> None:
        self._services = services
        self._read = read
        self._asked = asyncio.Event()

    def ask(self) -> None:
        self._asked.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            await self._reload()

    async def _reload(self) -> None:
        services = self._services
        try:
            reread = await asyncio.to_thread(self._read)
            require_callers(reread.config, services.policy_store.document)
            self._refuse_default_key(reread.config)
        except (ConfigUnusable, NoKeys) as error:
            _log.error("the configuration stays as it was", reason=str(error))
            self._note(FAILED, Outcome.FAILED)
            return
        services.policy.configure(reread.config)
        services.audit.level = reread.config.audit.level
        reread.apply()
        _log.info("configuration read again", keys=len(reread.config.keys))
        if reread.needs_restart:
            _log.warning("changed, and needs a restart: %s", ", ".join(reread.needs_restart))
        self._note(OK, Outcome.ALLOWED)

    def _refuse_default_key(self, config: EdgeConfig) -> None:
        """The well-known key is for a fresh installation, and none where keys were is not one. Raises NoKeys."""
        had_own = not any(key.is_default for key in self._services.policy.config.keys)
        if had_own and any(key.is_default for key in config.keys):
            raise NoKeys("no API key is configured any more")

    def _note(self, result: str, outcome: Outcome) -> None:
        self._services.metrics.config_reloads.labels(result).inc()
        self._services.audit.note(AuditEvent("config.reload", outcome, target=self._services.config.edge_id))
