"""The process that measures one backend: opens the model as a worker would, times some steps, and is gone.

A process of its own for each, since two libraries in one slow each other down, and one that crashes should take nobody
along.
"""

import os
import resource
import sys
from pathlib import Path
from typing import TextIO

from ops.calibration.request import Message, Request, runner_spec
from ops.calibration.steps import Effort, measure
from ops.supervisor.parent import die_with_parent
from workers.runners.base import RunnerError
from workers.runners.registry import create_runner


def main() -> int:
    request = Request.model_validate_json(sys.stdin.readline())
    die_with_parent(request.parent)
    # It may well crash; nobody wants the core.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with _own_output() as output:
        try:
            _measure(request, output)
        except (RunnerError, ValueError, MemoryError) as error:
            _tell(output, Message(failure=str(error) or type(error).__name__))
    return 0


def _measure(request: Request, output: TextIO) -> None:
    runner = create_runner(request.backend)
    opened = runner.open(runner_spec(request.spec))
    try:
        _tell(output, Message(is_open=True))
        effort = Effort(request.steps, request.seconds)
        figures = measure(runner, opened, request.sequences, effort, floor=request.floor, memory_bytes=_resident_bytes)
        _tell(output, Message(figures=figures))
    finally:
        runner.close()


def _own_output() -> TextIO:
    """What a library prints goes to stderr, so that only messages are in what the parent reads."""
    descriptor = os.dup(1)
    os.dup2(2, 1)
    return open(descriptor, "w")


def _tell(output: TextIO, message: Message) -> None:
    output.write(f"{message.model_dump_json()}\n")
    output.flush()


def _resident_bytes() -> int:
    """Of this process, now; where the system does not tell, at its most."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    sys.exit(main())
