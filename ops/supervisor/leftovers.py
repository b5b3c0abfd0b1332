"""What an `up` that was killed may have left behind, and the wait until that is gone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ops.errors import CannotStart

GRACE_S = 10.0
POLL_S = 0.02


def wait_for_leftovers(data_dir: Path) -> None:
    """Wait until no nats-server of an earlier `up` writes in this data directory; two at once would spoil the store.

    Called with the lock held, so whatever runs there has lost its parent. Asks first, then kills.
    """
    config = str(data_dir / "nats" / "server.conf")
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + GRACE_S
        for pid in _pids_with_argument(config):
            _send(pid, signal_number)
        while time.monotonic() < deadline:
            if not any(True for _ in _pids_with_argument(config)):
                return
            time.sleep(POLL_S)
    raise CannotStart(f"a nats-server of an earlier run still uses {data_dir}")


def _send(pid: int, signal_number: int) -> None:
    try:
        os.kill(pid, signal_number)
    except ProcessLookupError:
        return


def _pids_with_argument(argument: str) -> Iterator[int]:
    if sys.platform == "linux":
        yield from _from_proc(argument)
    else:
        yield from _from_ps(argument)


def _from_proc(argument: str) -> Iterator[int]:
    wanted = argument.encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in arguments:
            yield int(entry.name)


def _from_ps(argument: str) -> Iterator[int]:
    listing = subprocess.run(["ps", "-axo", "pid=,command="], capture_output=True, text=True, check=False).stdout
    for line in listing.splitlines():
        pid, _, command = line.strip().partition(" ")
        if command.endswith(f" {argument}") and "nats-server" in command:
            yield int(pid)
