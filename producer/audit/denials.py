"""Denials as they are recorded: the first of a kind at once, more of the same as one record with their number.

So a flood of bad keys costs a few records for each interval, and the numbers are right all the same.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from schemas.audit import AuditEvent

INTERVAL_S = 60.0
# Further kinds in one interval are told together.
_MAX_KINDS = 256
OTHERS = "others"


class _Kind(NamedTuple):
    action: str
    reason: str
    actor: str
    peer: str


@dataclass(slots=True)
class _More:
    """What came behind the first one. Unix times."""

    event: AuditEvent
    count: int = 0
    since: float = 0.0
    until: float = 0.0

    def add(self, at: float) -> None:
        self.since = self.since or at
        self.until = at
        self.count += 1


class Denials:
    """Used from the loop. What has not been told yet is told by `flush`."""

    def __init__(self, note: Callable[[AuditEvent], None]) -> None:
        self._note = note
        self._more: dict[_Kind, _More] = {}

    def add(self, event: AuditEvent, peer: str) -> None:
        """Somebody at address `peer`, where that is known, was denied something."""
        kind = _Kind(event.action, event.reason, event.actor, peer)
        if kind not in self._more and len(self._more) >= _MAX_KINDS:
            kind = _Kind(event.action, event.reason, "", OTHERS)
            event = replace(event, actor="", tenant="", target="", request_id="")
        if kind.peer:
            event = replace(event, details={**event.details, "peer": kind.peer})
        if kind in self._more:
            self._more[kind].add(time.time())
            return
        self._more[kind] = _More(event)
        self._note(replace(event, details={**event.details, "count": 1}))

    def flush(self) -> None:
        """Tell the numbers and begin a new interval."""
        told, self._more = self._more, {}
        for more in told.values():
            if more.count:
                facts = {"count": more.count, "since": round(more.since, 3), "until": round(more.until, 3)}
                # Of many, neither the request nor what was asked for is one.
                event = replace(more.event, target="", request_id="")
                self._note(replace(event, details={**event.details, **facts}))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            self.flush()
