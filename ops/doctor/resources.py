"""Does what is configured fit here: files that may be open, memory for weights, model files that can be read."""

import os
import resource
from collections.abc import Sequence
from pathlib import Path

from ops.doctor.check import Check
from ops.serving.machine import Machine
from ops.serving.plan import PlannedModel
from ops.serving.sources import SourceKind
from ops.settings.settings import Settings
from workers.runners.devices import Device
from workers.runners.machine import available_bytes

# What a process has open besides its clients.
_OTHER_FILES = 128


def check_resources(settings: Settings, machine: Machine, plan: Sequence[PlannedModel]) -> list[Check]:
    files = {model.settings.id: _weights(model) for model in plan}
    checks = [_open_files(settings), _readable(files)]
    # Weights that a GPU holds are only read on their way there.
    return [*checks, _memory(files, settings.workers)] if machine.device is Device.CPU else checks


def _weights(model: PlannedModel) -> list[Path]:
    location = Path(model.source.location)
    if model.source.kind is SourceKind.ECHO:
        return []
    return sorted(location.glob("*.safetensors")) if location.is_dir() else [location]


def _open_files(settings: Settings) -> Check:
    """The edge raises the soft limit by itself, up to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.server.max_concurrent + _OTHER_FILES
    shown = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    if hard == resource.RLIM_INFINITY or hard >= needed:
        return Check("open files", True, f"up to {shown}")
    detail = f"up to {shown}; server.max_concurrent={settings.server.max_concurrent} calls need {needed}"
    return Check("open files", False, detail, f"ulimit -Hn {needed} (LimitNOFILE={needed} in a unit)", is_needed=False)


def _readable(files: dict[str, list[Path]]) -> Check:
    for model_id, paths in files.items():
        for path in paths:
            try:
                with path.open("rb") as file:
                    file.seek(-1, os.SEEK_END)
                    file.read(1)
            except OSError as error:
                return Check("model files", False, f"{model_id}: {path}: {error.strerror}", f"chmod a+r {path}")
    sizes = [f"{model_id} {_gib(_size(paths))}" for model_id, paths in files.items() if paths]
    return Check("model files", True, "; ".join(sizes) or "none needed")


def _memory(files: dict[str, list[Path]], workers: int) -> Check:
    """Weights once: the workers of a machine share the pages of a file. KV takes what is left."""
    available, weights = available_bytes(), sum(map(_size, files.values()))
    detail = f"{_gib(available)} available; weights {_gib(weights)}, shared by {workers} for each model"
    if weights <= available:
        return Check("memory", True, detail)
    return Check("memory", False, detail, "serve a smaller or more strongly quantized model (--model)")


def _size(paths: list[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"
