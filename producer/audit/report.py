"""What a verification found."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

MAX_PROBLEMS = 20


class Problem(NamedTuple):
    """`line` counts from 1 in a file, 0 in the stream; the rest is what the line itself says, as far as it does."""

    line: int
    seq: int
    writer: str
    number: int
    reason: str


@dataclass(slots=True)
class ChainState:
    """One writer's records as far as they were read. `is_closed`: the last one says that the edge was stopped."""

    first_number: int
    number: int
    mac: str
    seq: int
    num_records: int = 0
    is_closed: bool = False


@dataclass(slots=True)
class Report:
    """`num_problems` counts all of them, `problems` holds the first ones. `num_torn`: lines that a crash cut off and
    that stand there again as a whole.
    """

    kind: str
    num_records: int = 0
    first_seq: int = 0
    last_seq: int = 0
    num_torn: int = 0
    num_problems: int = 0
    problems: list[Problem] = field(default_factory=list)
    chains: dict[str, ChainState] = field(default_factory=dict)

    @property
    def is_ok(self) -> bool:
        return self.num_problems == 0

    def add(self, problem: Problem) -> None:
        self.num_problems += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)

    def as_json(self) -> dict[str, Any]:
        return {
            "object": "audit.verification",
            "ok": self.is_ok,
            "kind": self.kind,
            "records": self.num_records,
            "first_seq": self.first_seq,
            "last_seq": self.last_seq,
            "torn_lines": self.num_torn,
            "problems": [
                {"line": each.line or None, "seq": each.seq or None, "writer": each.writer, "n": each.number or None,
                 "reason": each.reason}
                for each in self.problems
            ],
            "num_problems": self.num_problems,
            "chains": [
                {"writer": writer, "first": chain.first_number, "last": chain.number, "last_seq": chain.seq,
                 "closed": chain.is_closed}
                for writer, chain in sorted(self.chains.items())
            ],
        }  # fmt: skip
