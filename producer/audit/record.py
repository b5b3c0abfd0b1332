"""One record as a line of JSON, with the code of the line before it and its own over all that stands before that.

The code is over bytes, not over values: a line is as it was written or it is not genuine.
"""

import re
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson

from producer.audit.keys import AuditKeys
from schemas.audit import AuditEvent

# What stands before a chain's first record.
NOTHING = "0" * 64
_SEAL = re.compile(rb',"mac":"([0-9a-f]{64})"\}')
_SEAL_BYTES = len(',"mac":""}') + 64
_MAX_TEXT = 256
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


class NotARecord(ValueError):
    """The line is not one of ours; the text says why."""


def write_line(keys: AuditKeys, writer: Writer, behind: Link, event: AuditEvent, at: float) -> bytes:
    """The record of an event behind `behind`, without an end of line. `at` is Unix time."""
    fields = {
        "v": _VERSION,
        "writer": writer.id,
        "run": writer.run,
        "n": behind.number + 1,
        "at": time_text(at),
        **_facts(event),
        "key": keys.key_id,
        "behind": behind.seq,
        "prev": behind.mac,
    }
    text = orjson.dumps(fields)[:-1]
    return b'%s,"mac":"%s"}' % (text, keys.seal(text).encode())


def read_line(line: bytes) -> dict[str, Any]:
    """The fields of a line, unchecked. Raises NotARecord."""
    try:
        fields = orjson.loads(line)
    except ValueError:
        raise NotARecord("it is not JSON") from None
    if not isinstance(fields, dict):
        raise NotARecord("it is not a JSON object")
    return fields


def sealed_part(line: bytes) -> tuple[bytes, str]:
    """What the code of a line is over, and the code. Raises NotARecord."""
    found = _SEAL.fullmatch(line, len(line) - _SEAL_BYTES) if len(line) > _SEAL_BYTES else None
    if found is None:
        raise NotARecord("it does not end with its code")
    return line[: found.start()], found.group(1).decode()


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
    return _clean(value, None) if isinstance(value, str) else value


def _clean(text: str, length: int | None) -> str:
    """Cut to `length`, and without halves of characters, which JSON cannot hold."""
    return text[:length].encode("utf-8", "replace").decode()
