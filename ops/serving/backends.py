"""Which backend runs a model, and why. Decides on what it is told, and looks at nothing itself."""

from collections.abc import Iterable
from typing import NamedTuple

from ops.calibration.verdict import Verdict
from ops.errors import CannotStart
from ops.serving.machine import Machine
from ops.serving.sources import Source, SourceKind
from ops.settings.settings import ModelSettings, RuntimeSettings
from workers.runners.devices import Device

NATIVE = ("torch", "mlx")
_WEIGHTS = frozenset({SourceKind.GGUF, SourceKind.FOLDER})
_READS = {
    "llama_cpp": frozenset({SourceKind.GGUF}),
    "torch": _WEIGHTS,
    "mlx": _WEIGHTS,
    "echo": frozenset({SourceKind.ECHO}),
}
# Those whose KV is in pages that we size.
_PAGED = frozenset({"torch"})
# Where several could, the first does. MLX is made for Apple's processors and comes last elsewhere.
_PREFERENCE = {
    Device.CPU: ("llama_cpp", "torch", "mlx"),
    Device.CUDA: ("llama_cpp", "torch", "mlx"),
    Device.ROCM: ("llama_cpp", "torch", "mlx"),
    Device.METAL: ("mlx", "llama_cpp", "torch"),
}
_FALLBACK = "runtime.backend_exposure.allow_llama_fallback is false"


class Choice(NamedTuple):
    """`reason` is for the ready block and `/v1/models`."""

    backend: str
    reason: str


class _Order(NamedTuple):
    """Backends in the order they are tried, and who made it so."""

    backends: list[str]
    maker: str


def choose_backend(
    model: ModelSettings, source: Source, runtime: RuntimeSettings, machine: Machine, verdict: Verdict | None = None
) -> Choice:
    """The backend for a model: by the verdict of a calibration if there is one, which is about its `rivals`.

    Raises CannotStart when the asked-for one cannot serve it, or none can.
    """
    asked = _asked(model, runtime)
    if asked != "auto":
        return _explicit(model, source, asked, machine)
    if source.kind is SourceKind.ECHO:
        return Choice("echo", "the model's source is echo")
    if verdict is not None and verdict.backend is not None:
        return Choice(verdict.backend, f"automatic: fastest here, {verdict.told()}")
    choice = _automatic(model, source, runtime, machine)
    return choice if verdict is None else Choice(choice.backend, f"{choice.reason}; measured {verdict.told()}")


def rivals(model: ModelSettings, source: Source, runtime: RuntimeSettings, machine: Machine) -> tuple[str, ...]:
    """The backends among which speed decides, in order of preference; none where something else decides.

    They use the same device. Where the settings give an order, they mean it.
    """
    is_ordered = bool(runtime.backend_priority) or runtime.prefer_native
    if not runtime.calibrate or is_ordered or _asked(model, runtime) != "auto" or source.kind is SourceKind.ECHO:
        return ()
    able = [
        backend
        for backend in _order(runtime, machine).backends
        if _obstacle(backend, source, machine) is None and _has_code(backend, source, machine)
    ]
    on_device = [backend for backend in able if machine.device in machine.backends[backend].devices]
    found = tuple(on_device or able)
    return found if len(found) > 1 else ()


def can_share_process(backends: Iterable[str]) -> bool:
    """Whether models on these may run in one process.

    Each library brings threads of its own. llama.cpp and PyTorch even bring the same OpenMP runtime, which is slow for
    good once the threads of both have entered it. Echo brings none.
    """
    return len(set(backends) - {"echo"}) <= 1


def refuse_unused_settings(runtime: RuntimeSettings, backends: Iterable[str]) -> None:
    """Raises CannotStart for what is set although none of these backends can honour it."""
    if runtime.kv_cpu_pages is not None and not _PAGED & set(backends):
        raise CannotStart("runtime.paged_kv.cpu_pages is set, but no model is on a backend with KV in pages (torch)")


def _explicit(model: ModelSettings, source: Source, asked: str, machine: Machine) -> Choice:
    if source.kind not in _READS[asked]:
        raise CannotStart(f"model {model.id}: backend {asked} cannot serve {source.location} ({source.kind})")
    if (obstacle := machine.backends[asked].obstacle) is not None:
        raise CannotStart(f"model {model.id}: backend {asked}: {obstacle}")
    return Choice(asked, "asked for")


def _asked(model: ModelSettings, runtime: RuntimeSettings) -> str:
    return model.backend if runtime.backend == "auto" else runtime.backend


def _has_code(backend: str, source: Source, machine: Machine) -> bool:
    return source.architecture is None or machine.backends[backend].can_run(source.architecture)


def _automatic(model: ModelSettings, source: Source, runtime: RuntimeSettings, machine: Machine) -> Choice:
    order = _order(runtime, machine)
    passed_over: list[str] = []
    without_code: list[str] = []
    for backend in order.backends:
        if (obstacle := _obstacle(backend, source, machine)) is not None:
            passed_over.append(f"{backend}: {obstacle}")
        elif not _has_code(backend, source, machine):
            passed_over.append(f"{backend}: has no code for architecture {source.architecture}")
            without_code.append(backend)
        else:
            return _choice(backend, order, machine, passed_over)
    if without_code:  # it is the one to refuse the file: that ends no other model
        return _choice(without_code[0], order, machine, passed_over)
    if not runtime.allow_llama_fallback:
        passed_over.append(f"llama_cpp: {_FALLBACK}")
    raise CannotStart(f"model {model.id}: no backend can serve it ({'; '.join(passed_over)})")


def _choice(backend: str, order: _Order, machine: Machine, passed_over: list[str]) -> Choice:
    return Choice(backend, "; ".join([f"automatic: {_place(backend, order, machine)}", *passed_over]))


def _obstacle(backend: str, source: Source, machine: Machine) -> str | None:
    """Why the backend cannot serve this kind of source here. What no installation can change comes first."""
    if source.kind not in _READS[backend]:
        return f"does not read a {source.kind}"
    return machine.backends[backend].obstacle


def _order(runtime: RuntimeSettings, machine: Machine) -> _Order:
    if runtime.backend_priority:
        order = _Order(list(dict.fromkeys(runtime.backend_priority)), "first of runtime.backend_priority that can")
    else:
        order = _Order(_by_device(machine), "")
    if runtime.prefer_native:
        by_nature = sorted(order.backends, key=lambda backend: backend not in NATIVE)
        order = _Order(by_nature, "native backends are preferred")
    if not runtime.allow_llama_fallback:
        order = _Order([backend for backend in order.backends if backend in NATIVE], "llama_cpp is not allowed")
    return order


def _by_device(machine: Machine) -> list[str]:
    """Those that can use the device of this machine come first."""
    return sorted(
        _PREFERENCE[machine.device], key=lambda backend: machine.device not in machine.backends[backend].devices
    )


def _place(backend: str, order: _Order, machine: Machine) -> str:
    uses_device = machine.device in machine.backends[backend].devices
    place = (
        f"on the {machine.device}" if uses_device else f"on the CPU, as this build does not use the {machine.device}"
    )
    return f"{order.maker}, {place}" if order.maker else place
