"""Backends by name. The only place that names concrete runners; a backend is imported when it is asked for."""

from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple, cast

from workers.runners.base import ModelRunner, RunnerError


class Backend(NamedTuple):
    """Where a runner lives, the packages it needs beyond the base install, and the command that installs them."""

    module: str
    runner: str
    requires: tuple[str, ...]
    install: str

    def missing(self) -> str | None:
        """Why the backend cannot be used here, or None. Imports nothing."""
        absent = [package for package in self.requires if find_spec(package) is None]
        return f"{', '.join(absent)} not installed; run: {self.install}" if absent else None


_BACKENDS = {
    "echo": Backend("workers.runners.echo", "EchoRunner", (), "make setup"),
    "llama_cpp": Backend("workers.runners.llama_cpp.runner", "LlamaCppRunner", ("llama_cpp",), "make setup"),
}


def available_backends() -> dict[str, str | None]:
    """Every known backend and, if it cannot be used here, the reason."""
    return {name: backend.missing() for name, backend in _BACKENDS.items()}


def create_runner(name: str) -> ModelRunner:
    """A runner that is not opened yet. Raises RunnerError when the backend is unknown, or absent: how to install it."""
    backend = _BACKENDS.get(name)
    if backend is None:
        raise RunnerError(f"there is no backend {name!r}; known: {', '.join(_BACKENDS)}")
    reason = backend.missing()
    if reason is not None:
        raise RunnerError(f"backend {name}: {reason}")
    try:
        module = import_module(backend.module)
    except (ImportError, OSError) as error:
        raise RunnerError(f"backend {name} cannot be loaded ({error}); run: {backend.install}") from error
    return cast(ModelRunner, getattr(module, backend.runner)())
