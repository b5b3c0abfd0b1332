"""Taking a line apart without believing it: what was sealed, with what code, and where it was stored.

Copies outside the stream carry their place in it behind the code, with a code of its own:
`…,"mac":"…"}` becomes `…,"mac":"…","seq":12,"place":"…"}`.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from producer.audit.keys import AuditKeys

_END = re.compile(rb',"mac":"([0-9a-f]{64})"(?:,"seq":([1-9][0-9]{0,18}),"place":"([0-9a-f]{32})")?\}')
# The longest such end.
_END_BYTES = 160


class NotARecord(ValueError):
    """The line is not one of ours; the text says why."""


class Line(NamedTuple):
    """`sealed` is what the code `mac` should be over. `seq` and `place` are of a copy, else 0 and empty."""

    sealed: bytes
    mac: str
    seq: int
    place: str
    fields: Mapping[str, Any]

    @property
    def writer(self) -> str:
        return str(self.fields.get("writer", ""))

    @property
    def number(self) -> int:
        """Its place in the chain of its writer."""
        return _whole(self.fields.get("n"))

    @property
    def behind(self) -> int:
        """The sequence of the block before it in its chain."""
        return _whole(self.fields.get("behind"))

    @property
    def prev(self) -> str:
        return str(self.fields.get("prev", ""))

    @property
    def key_id(self) -> str:
        return str(self.fields.get("key", ""))

    def is_genuine(self, keys: AuditKeys) -> bool:
        return keys.seal(self.sealed) == self.mac

    def is_in_place(self, keys: AuditKeys) -> bool:
        return _place(keys, self.mac, self.seq) == self.place


def parse(line: bytes) -> Line:
    """Raises NotARecord."""
    start = line.rfind(b',"mac":"', max(0, len(line) - _END_BYTES))
    end = _END.fullmatch(line, start) if start >= 0 else None
    if end is None:
        raise NotARecord("it does not end as a record does")
    sealed, mac, seq, place = line[:start], end[1].decode(), int(end[2] or 0), (end[3] or b"").decode()
    try:
        fields = orjson.loads(sealed + b"}")
    except ValueError:
        raise NotARecord("it is not JSON") from None
    if not isinstance(fields, dict):
        raise NotARecord("it is not a JSON object")
    return Line(sealed, mac, seq, place, fields)


def with_place(keys: AuditKeys, line: bytes, seq: int) -> bytes:
    """The line for a copy outside the stream."""
    found = _END.fullmatch(line, max(0, line.rfind(b',"mac":"')))
    if found is None:  # whatever it is, it is copied as it is
        return line
    return b'%s,"seq":%d,"place":"%s"}' % (line[:-1], seq, _place(keys, found[1].decode(), seq).encode())


def _place(keys: AuditKeys, mac: str, seq: int) -> str:
    return keys.seal(b"place %d %s" % (seq, mac.encode()))[:32]


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
