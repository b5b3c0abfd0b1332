"""Packages of npm that tests use, as their lock files say."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def node_modules(folder: Path) -> Path:
    """The packages of a folder with `package.json` and its lock file, installed on first use; a skip without node."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("needs node and npm")
    lock = (folder / "package-lock.json").read_bytes()
    target = Path(sys.prefix) / folder.name.replace("_", "-") / hashlib.sha256(lock).hexdigest()[:16]
    target.mkdir(parents=True, exist_ok=True)
    # Many test processes may want it first.
    with (target / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not (target / "installed").exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(folder / name, target)
            command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            done = subprocess.run(command, cwd=target, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"npm could not install {folder.name}:\n{done.stdout}{done.stderr}"
            (target / "installed").touch()
    return target / "node_modules"
