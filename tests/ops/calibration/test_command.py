"""`inferflux calibrate` as a process."""

import json
import os
import subprocess
import sys
from pathlib import Path

from ops.supervisor.lock import DataDirLock


def calibrate(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: text for name, text in os.environ.items() if not name.startswith("INFERFLUX_")}
    command = [sys.executable, "-m", "ops.cli.inferflux", "calibrate", "--data-dir", str(data_dir), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environ)


def test_what_needs_no_measuring_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    done = calibrate(tmp_path / "data", "--model", "echo", "--json")
    assert done.returncode == 0, done.stderr
    (model,) = json.loads(done.stdout)["models"]
    assert (model["backend"], model["calibration"]) == ("echo", None)
    assert not (tmp_path / "data" / "calibration").exists()


def test_where_up_runs_it_is_refused(tmp_path: Path) -> None:
    lock = DataDirLock(tmp_path)
    lock.acquire()
    try:
        done = calibrate(tmp_path, "--model", "echo")
    finally:
        lock.release()
    assert done.returncode == 3
    assert f"pid {os.getpid()}" in done.stderr
