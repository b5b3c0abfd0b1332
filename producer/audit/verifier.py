"""Checks records one by one: that each is genuine, and that none is missing, moved, repeated or put in between.

Every record is sealed over its own bytes, its number in its chain, the code of the one before, the stream sequence of
the block before, and now and then the newest record of all. So in the whole stream, or a whole export, whoever has not
the pepper can change nothing up to the last block that a later one names, and can only cut off what is behind it.
docs/trust/audit.md says what that leaves open.
"""

from producer.audit.keys import AuditKeys
from producer.audit.line import Line, NotARecord, parse
from producer.audit.record import NOTHING, Link
from producer.audit.report import ChainState, Problem, Report

STREAM, EXPORT, LOG = "stream", "export", "log"
EDGE_STOP = "edge.stop"


class Verifier:
    """`feed` lines in order, then `finish`. Pure, but for what it remembers.

    `kind`: in the stream and in an export every sequence has to be there; a log holds the chains of some writers, and
    may begin anywhere. `first_seq` is where the whole begins, if known.
    """

    def __init__(self, keys: AuditKeys, kind: str, *, first_seq: int = 0) -> None:
        self._keys = keys
        self._is_whole = kind != LOG
        self._first_seq = first_seq
        self._newest: dict[int, str] = {}
        self._torn: tuple[int, bytes, str] | None = None
        self._line = 0
        self.report = Report(kind)

    def feed(self, raw: bytes, *, line: int = 0, seq: int = 0) -> None:
        """A line without its end. `seq` is given for what comes from the stream; a copy says it itself."""
        self._line = line
        self._settle_torn(raw)
        try:
            parsed = parse(raw)
        except NotARecord as error:
            if line and self.report.kind == LOG:
                self._torn = (line, raw, str(error))
            else:
                self._tell(str(error), seq=seq)
            return
        self._check(parsed, seq)

    def finish(self, end: Link | None = None, writer: str = "") -> Report:
        """`end` is how far the chain of `writer` went for sure, as that writer itself remembers it."""
        self._settle_torn(b"")
        if end is not None and end.number:
            chain = self.report.chains.get(writer)
            if chain is None or chain.number < end.number:
                last = chain.number if chain is not None else 0
                self.report.add(Problem(0, end.seq, writer, last + 1, f"records up to {end.number} were stored and are"
                                        f" not there: the end is cut off"))  # fmt: skip
        return self.report

    def _settle_torn(self, following: bytes) -> None:
        """A line that a crash cut off is written again as a whole right behind it."""
        if self._torn is None:
            return
        (line, raw, reason), self._torn = self._torn, None
        if raw and following.startswith(raw):
            self.report.num_torn += 1
        else:
            self.report.add(Problem(line, 0, "", 0, reason))

    def _check(self, line: Line, seq: int) -> None:
        report = self.report
        if not line.is_genuine(self._keys):
            self._tell(self._why_not_genuine(line), line, seq)
            return
        if not seq:
            seq = line.seq
            if not seq or not line.is_in_place(self._keys):
                self._tell("its place in the stream is not genuine", line, seq)
                return
        report.num_records += 1
        self._check_place(line, seq)
        self._check_chain(line, seq)
        self._check_seen(line, seq)
        report.last_seq = max(report.last_seq, seq)

    def _why_not_genuine(self, line: Line) -> str:
        if line.key_id != self._keys.key_id:
            return f"it is sealed with another pepper (key {line.key_id[:16]!r}, not {self._keys.key_id!r})"
        return "its content is not what was sealed"

    def _check_place(self, line: Line, seq: int) -> None:
        """In what is whole, blocks follow each other without a hole."""
        report = self.report
        if not report.first_seq:
            report.first_seq = seq
        if not self._is_whole:
            return
        expected = report.last_seq + 1 if report.last_seq else self._first_seq or seq
        chain = report.chains.get(line.writer)
        continues = seq == report.last_seq and chain is not None and chain.seq == seq
        if not continues and seq != expected:
            before = "is out of order" if seq < expected else f"is not there, {seq - expected} in all"
            place = f"sequence {seq} {before}" if seq < expected else f"sequence {expected} {before}"
            self._tell(place, line, seq)

    def _check_chain(self, line: Line, seq: int) -> None:
        chain = self.report.chains.get(line.writer)
        if chain is None:
            self._check_beginning(line)
            chain = ChainState(line.number, line.number, line.mac, seq)
            self.report.chains[line.writer] = chain
        else:
            problem = self._break(chain, line, seq)
            if problem:
                self._tell(problem, line, seq)
            chain.number, chain.mac, chain.seq = line.number, line.mac, seq
        chain.num_records += 1
        chain.is_closed = line.fields.get("action") == EDGE_STOP

    def _check_beginning(self, line: Line) -> None:
        if line.number == 1 and line.prev == NOTHING:
            return
        is_at_beginning = 0 < line.behind < (self._first_seq or self.report.first_seq)
        if line.behind == 0 or (self._is_whole and not is_at_beginning):
            self._tell(f"records before number {line.number} of its chain are not there", line, line.seq)

    def _break(self, chain: ChainState, line: Line, seq: int) -> str:
        """What is wrong between the last record of a chain and this one; empty if nothing is."""
        if line.number > chain.number + 1:
            missing = f"{chain.number + 1} to {line.number - 1}" if line.number > chain.number + 2 else line.number - 1
            return f"before it, number {missing} of its chain is not there"
        if line.number <= chain.number:
            return f"number {line.number} of its chain stands behind number {chain.number}"
        if line.prev != chain.mac:
            return "the record before it is not the one that it names"
        if seq != chain.seq and line.behind != chain.seq:
            return f"the block before it was stored at sequence {line.behind}, and is at {chain.seq}"
        return ""

    def _check_seen(self, line: Line, seq: int) -> None:
        """Now and then a record names the newest of all."""
        if not self._is_whole:
            return
        self._newest[seq] = line.mac
        seen = line.fields.get("seen") or {"seq": 0}
        if seen["seq"] >= self.report.first_seq and self._newest.get(seen["seq"]) != seen["mac"]:
            self._tell(f"the record at sequence {seen['seq']} is not the one that was there", line, seq)

    def _tell(self, reason: str, line: Line | None = None, seq: int = 0) -> None:
        writer, number = (line.writer, line.number) if line is not None else ("", 0)
        self.report.add(Problem(self._line, seq or (line.seq if line is not None else 0), writer, number, reason))
