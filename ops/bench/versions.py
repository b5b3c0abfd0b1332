"""Versions of what takes part on our side."""

import importlib.metadata
import subprocess
from pathlib import Path

from broker.errors import BrokerError
from broker.server import find_binary
from ops.version import installed_version

ROOT = Path(__file__).resolve().parents[2]


def inferflux_version() -> str:
    """The version, with the commit where this is a checkout; `-dirty` when it has changes."""
    commit = _output("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12")
    return f"{installed_version()} ({commit})" if commit else installed_version()


def nats_server_version() -> str:
    try:
        return _output(find_binary(), "--version").replace(": ", " ")
    except BrokerError:
        return "nats-server of unknown version"


def distribution_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def _output(*command: str) -> str:
    """What a command prints; nothing when it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
