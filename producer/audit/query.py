"""What somebody looks for among the records."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from producer.audit.record import time_text

# What is sealed and not about the event.
_INNER = frozenset({"v", "run", "key", "seen", "behind", "prev"})


class Place(NamedTuple):
    """Where a record is: its block's sequence, and its line in the block from 0."""

    seq: int
    line: int

    @property
    def id(self) -> str:
        return f"{self.seq}-{self.line}"

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Raises ValueError."""
        seq, dash, line = text.partition("-")
        if not (dash and seq.isascii() and seq.isdigit() and line.isascii() and line.isdigit() and len(text) < 40):
            raise ValueError(f"not the id of an audit record: {text[:40]!r}")
        return cls(int(seq), int(line))


@dataclass(frozen=True, slots=True)
class Query:
    """Empty fields fit all. Times are Unix time; `action` may be the noun alone, such as `api_key`."""

    since: float | None = None
    until: float | None = None
    actor: str | None = None
    action: str | None = None
    outcome: str | None = None
    after: Place | None = None
    limit: int = 100
    is_newest_first: bool = True

    def fits(self, fields: Mapping[str, Any]) -> bool:
        action = str(fields.get("action", ""))
        at = str(fields.get("at", ""))
        return (
            (self.since is None or at >= time_text(self.since))
            and (self.until is None or at <= time_text(self.until))
            and self.actor in (None, fields.get("actor", ""))
            and self.action in (None, action, action.partition(".")[0])
            and self.outcome in (None, fields.get("outcome"))
        )


def shown(place: Place, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A record as people and tools get it; only an export carries what verifies it."""
    facts = {name: value for name, value in fields.items() if name not in _INNER}
    return {"object": "audit.record", "id": place.id, **facts}
