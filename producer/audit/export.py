"""A whole export: a sealed first line that says what it holds, the records with their places, a sealed last line.

The same for people who verify it, and for logs, which have neither of the two.
"""

from producer.audit.keys import AuditKeys
from producer.audit.line import Line, NotARecord, parse
from producer.audit.record import seal, time_text
from producer.audit.report import Problem, Report
from producer.audit.verifier import EXPORT, LOG, Verifier

_HEAD, _END = "audit.export", "audit.export.end"


def head_line(keys: AuditKeys, first_seq: int, last_seq: int, at: float) -> bytes:
    return seal(keys, {"object": _HEAD, "v": 1, "first_seq": first_seq, "last_seq": last_seq, "at": time_text(at)})


def end_line(keys: AuditKeys, head: bytes, num_records: int) -> bytes:
    return seal(keys, {"object": _END, "records": num_records, "head": parse(head).mac})


class FileVerifier:
    """`feed` the lines of an export or of an edge's audit log, then `finish`."""

    def __init__(self, keys: AuditKeys) -> None:
        self._keys = keys
        self._verifier = Verifier(keys, LOG)
        self._head: Line | None = None
        self._end: Line | None = None
        self._num_lines = 0

    def feed(self, raw: bytes) -> None:
        self._num_lines += 1
        frame = self._frame(raw)
        if frame is not None and frame.fields["object"] == _HEAD and self._num_lines == 1:
            self._head = frame
            self._verifier = Verifier(self._keys, EXPORT, first_seq=frame.fields["first_seq"])
        elif frame is not None and frame.fields["object"] == _END and self._head is not None and self._end is None:
            self._end = frame
        elif self._end is not None:
            self._tell("it stands behind the end of the export")
        else:
            self._verifier.feed(raw, line=self._num_lines)

    def finish(self) -> Report:
        report = self._verifier.finish()
        if self._head is None:
            return report
        last_seq, num_records = self._head.fields["last_seq"], report.num_records
        if self._end is None:
            self._tell("the end of the export is not there")
        elif self._end.fields["head"] != self._head.mac:
            self._tell("the end is that of another export")
        elif self._end.fields["records"] != num_records:
            self._tell(f"the export has {num_records} good records, and had {self._end.fields['records']}")
        if report.last_seq != last_seq:
            self._tell(f"the export ends at sequence {report.last_seq}, and went up to {last_seq}")
        return report

    def _frame(self, raw: bytes) -> Line | None:
        """A first or last line of an export, if it is a genuine one."""
        if not raw.startswith(b'{"object":'):
            return None
        try:
            line = parse(raw)
        except NotARecord:
            return None
        return line if line.is_genuine(self._keys) and line.fields["object"] in (_HEAD, _END) else None

    def _tell(self, reason: str) -> None:
        self._verifier.report.add(Problem(self._num_lines, 0, "", 0, reason))
