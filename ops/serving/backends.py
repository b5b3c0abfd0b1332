"""Which backend runs a model, and why: an explicit one or none, `auto` by the configured order."""

from typing import NamedTuple

from ops.errors import CannotStart
from ops.serving.sources import Source, SourceKind
from ops.settings.settings import ModelSettings, RuntimeSettings

NATIVE = ("torch", "mlx")
_WEIGHTS = frozenset({SourceKind.GGUF, SourceKind.FOLDER})
_SERVES = {
    "llama_cpp": frozenset({SourceKind.GGUF}),
    "torch": _WEIGHTS,
    "mlx": _WEIGHTS,
    "echo": frozenset({SourceKind.ECHO}),
}


class Choice(NamedTuple):
    """`reason` is for the ready block and `/v1/models`."""

    backend: str
    reason: str


def backend_obstacles() -> dict[str, str | None]:
    """Every backend and what stands in its way here; None when nothing does."""
    from workers.runners.registry import available_backends

    known = available_backends()
    return {name: known.get(name, "not available in this version") for name in _SERVES}


def choose_backend(model: ModelSettings, source: Source, runtime: RuntimeSettings) -> Choice:
    """The backend for a model. Raises CannotStart when the asked-for one cannot serve it, or none can."""
    asked = model.backend if runtime.backend == "auto" else runtime.backend
    obstacles = backend_obstacles()
    if asked != "auto":
        return _explicit(model, source, asked, obstacles[asked])
    if source.kind is SourceKind.ECHO:
        return Choice("echo", "the model's source is echo")
    return _by_order(model, source, runtime, obstacles)


def _explicit(model: ModelSettings, source: Source, asked: str, obstacle: str | None) -> Choice:
    if source.kind not in _SERVES[asked]:
        raise CannotStart(f"model {model.id}: backend {asked} cannot serve {source.location} ({source.kind})")
    if obstacle is not None:
        raise CannotStart(f"model {model.id}: backend {asked}: {obstacle}")
    return Choice(asked, "asked for")


def _by_order(
    model: ModelSettings, source: Source, runtime: RuntimeSettings, obstacles: dict[str, str | None]
) -> Choice:
    passed_over: list[str] = []
    for backend in _order(runtime):
        obstacle = obstacles[backend]
        if source.kind not in _SERVES[backend]:
            passed_over.append(f"{backend}: does not read a {source.kind}")
        elif obstacle is not None:
            passed_over.append(f"{backend}: {obstacle}")
        else:
            return Choice(backend, "; ".join(["first in order that can", *passed_over]))
    if not runtime.allow_llama_fallback:
        passed_over.append("llama_cpp: runtime.backend_exposure.allow_llama_fallback is false")
    raise CannotStart(f"model {model.id}: no backend can serve it ({'; '.join(passed_over)})")


def _order(runtime: RuntimeSettings) -> list[str]:
    order = list(dict.fromkeys(runtime.backend_priority))
    if runtime.prefer_native:
        order.sort(key=lambda backend: backend not in NATIVE)
    if not runtime.allow_llama_fallback:
        order = [backend for backend in order if backend in NATIVE]
    return order
