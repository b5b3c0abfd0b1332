"""One backend measured in a process of its own, which may hang, crash, or say that it cannot."""

import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from typing import IO, NamedTuple

from pydantic import ValidationError

from ops.calibration.request import Message, Request
from ops.calibration.verdict import Outcome

# `-P`: a folder of the caller's called like one of ours is not imported.
CHILD_COMMAND = (sys.executable, "-P", "-m", "ops.calibration.child")
_LOOK_EVERY_S = 0.1
_LAST_WORDS_BYTES = 4096
_MAX_REASON = 200


class Stopped(Exception):
    """Whoever asked does not want to know any more."""


class Limits(NamedTuple):
    """Seconds for opening the model, in which a kernel may have to be compiled, and for the timed steps after that."""

    open_s: float
    measure_s: float


def run_candidate(
    request: Request, limits: Limits, stop: threading.Event, command: Sequence[str] = CHILD_COMMAND
) -> Outcome:
    """Its figures, or in one line why there are none. Raises Stopped once `stop` is set; no process is left then."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
        lines: queue.Queue[bytes | None] = queue.Queue()
        reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
        reader.start()
        try:
            _send(process.stdin, request)
            said = _follow(lines, limits, stop)
            reason = said if isinstance(said, str) else said.failure
            if not reason and (not isinstance(said, Message) or said.figures is None):
                reason = _ending(process.wait(limits.measure_s), errors)
        except subprocess.TimeoutExpired:
            reason = "its process does not end"
        finally:
            process.kill()
            process.wait()
            reader.join()
            if process.stdout is not None:
                process.stdout.close()
    if isinstance(said, Message) and said.figures is not None:
        return Outcome(backend=request.backend, figures=said.figures)
    return Outcome(backend=request.backend, reason=_one_line(reason))


def _send(stdin: IO[bytes] | None, request: Request) -> None:
    assert stdin is not None
    try:
        with stdin:
            stdin.write(f"{request.model_dump_json()}\n".encode())
    except BrokenPipeError:
        pass  # how it ended says more


def _read(stdout: IO[bytes] | None, lines: "queue.Queue[bytes | None]") -> None:
    assert stdout is not None
    for line in stdout:
        lines.put(line)
    lines.put(None)


def _follow(lines: "queue.Queue[bytes | None]", limits: Limits, stop: threading.Event) -> Message | str:
    """Its last message, which is empty when it ended without one; a text when its time is up."""
    limit_s, doing = limits.open_s, "open the model"
    until = time.monotonic() + limit_s
    while True:
        if stop.is_set():
            raise Stopped
        try:
            line = lines.get(timeout=_LOOK_EVERY_S)
        except queue.Empty:
            if time.monotonic() > until:
                return f"it did not {doing} within {limit_s:.0f} s"
            continue
        if line is None:
            return Message()
        try:
            message = Message.model_validate_json(line)
        except ValidationError:
            return "it says what nobody understands"
        if not message.is_open:
            return message
        limit_s, doing = limits.measure_s, "compute a few steps"
        until = time.monotonic() + limit_s


def _ending(code: int, errors: IO[bytes]) -> str:
    if code < 0:
        try:
            return f"its process ended with {signal.Signals(-code).name}"
        except ValueError:
            return f"its process ended with signal {-code}"
    errors.seek(0, 2)
    errors.seek(max(0, errors.tell() - _LAST_WORDS_BYTES))
    words = errors.read().decode(errors="replace").strip().splitlines()
    return f"its process ended with code {code}{f': {words[-1]}' if words else ''}"


def _one_line(reason: str) -> str:
    line = " ".join(reason.split())
    return line if len(line) <= _MAX_REASON else f"{line[:_MAX_REASON]}…"
