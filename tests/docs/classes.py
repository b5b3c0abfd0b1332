"""The commands of the guides: each is run, or checked against the real command line, or cannot run for a reason."""

import shlex
from enum import Enum, auto


class Class(Enum):
    RUN = auto()
    CHECKED = auto()
    NOT_RUN = auto()


# What a block's script may begin a line with. `.venv/bin/` before a program counts as nothing.
RUN = frozenset({"curl", "inferctl", "export", "mkdir", "printf"})
# They serve until they are stopped, take minutes, or change the installation: `test_commands` looks up their options.
CHECKED = frozenset({"make", "inferflux", "pytest"})
CHECKED_MODULES = frozenset({"ops.bench", "ops.bench.long_prompt", "ops.bench.step"})

_NATS = "the nats command line is not installed by the set-up"
_PROFILER = "wants a process to look at, and a program that the set-up does not install"
_ISSUER = "wants a server with an issuer of tokens and a person at its pages: tests/ops/cli/test_login.py has both"
_PROFILED = "serves until it is told to leave, or talks to a person"
NOT_RUN = {
    "nats --context inferflux stream ls": _NATS,
    "nats --context inferflux stream report": _NATS,
    "nats --context inferflux stream info INFERFLUX_TOKENS": _NATS,
    "nats --context inferflux consumer ls INFERFLUX_REQUESTS": _NATS,
    "nats --context inferflux consumer report INFERFLUX_REQUESTS": _NATS,
    "nats --context inferflux sub 'inferflux.evt.>'": _NATS,
    ".venv/bin/pip install py-spy": _PROFILER,
    ".venv/bin/py-spy dump --pid PID": _PROFILER,
    ".venv/bin/py-spy record --threads --duration 20 --output worker.svg --pid PID": _PROFILER,
    "perf record -g --pid PID -- sleep 20": _PROFILER,
    "perf report --no-children": _PROFILER,
    "perf stat --pid PID -- sleep 10": _PROFILER,
    ".venv/bin/python -m cProfile -o edge.prof -m ops.cli.inferflux edge --data-dir .inferflux --port 8081": _PROFILED,
    ".venv/bin/python -m pstats edge.prof": _PROFILED,
    "inferctl login --host https://llm.example": _ISSUER,
    "inferctl models --host https://llm.example": _ISSUER,
    "inferctl logout --host https://llm.example": _ISSUER,
}


def class_of(line: str) -> Class | None:
    """The class of a command line; None when somebody has yet to decide."""
    if line.strip() in NOT_RUN:
        return Class.NOT_RUN
    words = shlex.split(line, comments=True)
    program = words[0].removeprefix(".venv/bin/")
    if program in RUN:
        return Class.RUN
    if program in CHECKED or (program == "python" and words[1] == "-m" and words[2] in CHECKED_MODULES):
        return Class.CHECKED
    return None
