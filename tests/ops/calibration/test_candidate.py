"""One backend in a process of its own: real processes, that measure, crash, hang and talk nonsense."""

import os
import sys
import threading
from pathlib import Path

import pytest

from ops.calibration.candidate import CHILD_COMMAND, Limits, Stopped, run_candidate
from ops.calibration.request import Request, spec_document
from tests.support.waiting import until
from workers.runners.base import RunnerSpec

LIMITS = Limits(open_s=60, measure_s=60)
AT_ONCE = Limits(open_s=0, measure_s=60)
OPEN = "print('{\"is_open\": true}', flush=True)"


def request(backend: str = "echo", source: str = "echo:repeat", **options: int) -> Request:
    spec = RunnerSpec("m", source, context=256, sequences=4, **options)  # type: ignore[arg-type]
    return Request(backend=backend, spec=spec_document(spec), sequences=4, steps=3, seconds=0.1, parent=os.getpid())


def script(folder: Path, *lines: str) -> list[str]:
    """A process in the place of ours, that reads its request first."""
    path = folder / "child.py"
    path.write_text("\n".join(["import os, signal, sys, threading", "sys.stdin.read()", *lines]))
    return [sys.executable, str(path)]


def test_a_backend_is_measured_by_the_child_process() -> None:
    outcome = run_candidate(request(), LIMITS, threading.Event())
    assert outcome.figures is not None, outcome.reason
    assert outcome.figures.sequences == 4
    assert outcome.figures.memory_bytes > 2**20


def test_a_model_that_does_not_load_is_told_with_the_runners_reason() -> None:
    outcome = run_candidate(request(source="echo:nonsense"), LIMITS, threading.Event())
    assert outcome.figures is None
    assert "the echo runner's sources are" in outcome.reason
    absent = run_candidate(request(backend="no_such"), LIMITS, threading.Event())
    assert "there is no backend 'no_such'" in absent.reason


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (("os.abort()",), "its process ended with SIGABRT"),
        ((OPEN, "os.kill(os.getpid(), signal.SIGSEGV)"), "its process ended with SIGSEGV"),
        (("sys.exit('no such symbol: llama_init')",), "its process ended with code 1: no such symbol: llama_init"),
        ((OPEN, "sys.exit(0)"), "its process ended with code 0"),
        (("print('hello')",), "it says what nobody understands"),
        (('print(\'{"figures": {"decode": -1}}\')',), "it says what nobody understands"),
    ],
)
def test_a_crash_is_an_outcome(tmp_path: Path, lines: tuple[str, ...], reason: str) -> None:
    outcome = run_candidate(request(), LIMITS, threading.Event(), script(tmp_path, *lines))
    assert (outcome.backend, outcome.figures, outcome.reason) == ("echo", None, reason)


def test_one_that_hangs_is_ended(tmp_path: Path) -> None:
    hangs = (f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))", "threading.Event().wait()")
    outcome = run_candidate(request(), AT_ONCE, threading.Event(), script(tmp_path, *hangs))
    assert outcome.reason == "it did not open the model within 0 s"
    outcome = run_candidate(request(), Limits(60, 0), threading.Event(), script(tmp_path, OPEN, *hangs))
    assert outcome.reason == "it did not compute a few steps within 0 s"
    assert _no_process_has(script(tmp_path)[1])


async def test_whoever_asked_can_stop_it(tmp_path: Path) -> None:
    pid_file, stop = tmp_path / "pid", threading.Event()
    command = script(tmp_path, f"open({str(pid_file)!r}, 'w').write(str(os.getpid()))", "threading.Event().wait()")
    ended = []

    def run() -> None:
        try:
            run_candidate(request(), LIMITS, stop, command)
        except Stopped:
            ended.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    await until(lambda: pid_file.exists() and pid_file.read_text() != "")
    stop.set()
    thread.join(30)
    assert ended == [True]
    assert _no_process_has(command[1])


def test_our_child_is_no_longer_there_than_its_parent() -> None:
    outcome = run_candidate(request().model_copy(update={"parent": 1}), LIMITS, threading.Event(), CHILD_COMMAND)
    assert outcome.reason == "its process ended with code 1"


def _no_process_has(argument: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if argument.encode() in path.read_bytes().split(b"\0"):
                return False
        except OSError:
            continue
    return True
