"""One record as a line of JSON: its code stands at the end, over all that is before it, the last record's code too."""

from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from producer.audit.keys import AuditKeys
from schemas.audit import AuditEvent

# What stands before a chain's first record.
NOTHING = "0" * 64
_MAX_TEXT = 256
# Characters of a detail, such as a prompt that is recorded as it is.
MAX_CONTENT = 16 * 1024
_INT64 = 2**63
_VERSION = 1


class Link(NamedTuple):
    """The end of a chain: number and code of its last record, and the stream sequence of the block that holds it."""

    number: int = 0
    mac: str = NOTHING
    seq: int = 0


class Writer(NamedTuple):
    """Who writes a chain. `run` is another one for each process: what two of them write is never the same."""

    id: str
    run: str


class Seen(NamedTuple):
    """The record, whoever wrote it, that was the newest of all a moment before this one."""

    seq: int
    mac: str


def write_line(
    keys: AuditKeys, writer: Writer, behind: Link, event: AuditEvent, at: float, seen: Seen | None = None
) -> bytes:
    """The record of an event behind `behind`, without an end of line. `at` is Unix time."""
    fields: dict[str, Any] = {
        "v": _VERSION,
        "writer": writer.id,
        "run": writer.run,
        "n": behind.number + 1,
        "at": time_text(at),
        **_facts(event),
        "key": keys.key_id,
    }
    if seen is not None:
        fields["seen"] = seen._asdict()
    return seal(keys, {**fields, "behind": behind.seq, "prev": behind.mac})


def seal(keys: AuditKeys, fields: dict[str, Any]) -> bytes:
    """Any facts as a line with its code at the end."""
    text = orjson.dumps(fields)[:-1]
    return b'%s,"mac":"%s"}' % (text, keys.seal(text).encode())


def time_text(at: float) -> str:
    """Unix time as UTC text with milliseconds, which sorts as the times do."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _facts(event: AuditEvent) -> dict[str, Any]:
    """What is said of an event; what is empty is left out."""
    texts = {
        "action": event.action,
        "outcome": str(event.outcome),
        "actor": event.actor,
        "tenant": event.tenant,
        "target": event.target,
        "request_id": event.request_id,
        "reason": event.reason,
    }
    facts: dict[str, Any] = {name: _clean(text, _MAX_TEXT) for name, text in texts.items() if text}
    if event.details:
        facts["details"] = {name: _detail(value) for name, value in event.details.items()}
    return facts


def _detail(value: str | int | float | bool) -> str | int | float | bool:
    if isinstance(value, str):
        return _clean(value, MAX_CONTENT)
    return value if isinstance(value, bool | float) or -_INT64 <= value < _INT64 else str(value)


def _clean(text: str, length: int) -> str:
    """Cut to `length`, and without halves of characters, which JSON cannot hold."""
    return text[:length].encode("utf-8", "replace").decode()
