"""Backends by name. The only place that names concrete runners; a backend is imported when it is asked for."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple, cast

from workers.runners.base import ModelRunner, RunnerError
from workers.runners.devices import CPU_ONLY, Devices, llama_cpp_devices, mlx_devices, torch_devices


class Backend(NamedTuple):
    """Where a runner lives, the packages it needs beyond the base install, and the command that installs them.

    `devices` looks for what the installed library was built for. `architectures` are those the runner has code for, as
    model files name them; None: the library decides when it loads the file.
    """

    module: str
    runner: str
    requires: tuple[str, ...]
    install: str
    devices: Callable[[], Devices] = lambda: CPU_ONLY
    architectures: frozenset[str] | None = None

    def missing(self) -> str | None:
        """Why the backend cannot be used here, or None. Loads no library."""
        if not _is_here(self.module):
            return "not available in this version"
        absent = [package for package in self.requires if find_spec(package) is None]
        return f"{', '.join(absent)} not installed; run: {self.install}" if absent else None


def _is_here(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # nor is the package it would be in
        return False


# Llama-family models; in GGUF files Mistral calls itself llama.
_OUR_MODELS = frozenset({"llama", "mistral", "qwen2", "qwen3"})
_BACKENDS = {
    "echo": Backend("workers.runners.echo", "EchoRunner", (), "make setup"),
    "llama_cpp": Backend(
        module="workers.runners.llama_cpp.runner",
        runner="LlamaCppRunner",
        requires=("llama_cpp",),
        install="make setup PARTS=llama",
        devices=llama_cpp_devices,
    ),
    "torch": Backend(
        module="workers.runners.torch.runner",
        runner="TorchRunner",
        requires=("torch", "safetensors", "tokenizers", "gguf"),
        install="make setup PARTS=torch",
        devices=torch_devices,
        architectures=_OUR_MODELS,
    ),
    "mlx": Backend(
        module="workers.runners.mlx.runner",
        runner="MlxRunner",
        requires=("mlx", "mlx_lm", "safetensors", "tokenizers", "gguf"),
        install="make setup PARTS=mlx",
        devices=mlx_devices,
        architectures=_OUR_MODELS,
    ),
}


def known_backends() -> dict[str, Backend]:
    """Every backend by name, installed or not."""
    return dict(_BACKENDS)


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
