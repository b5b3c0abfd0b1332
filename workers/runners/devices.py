"""Which device this machine has, and which ones the installed libraries were built for. Loads none of them."""

import re
import sys
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from platform import machine


class Device(StrEnum):
    CPU = "CPU"
    CUDA = "NVIDIA GPU"
    ROCM = "AMD GPU"
    METAL = "Apple GPU"


# The drivers' own files: there when a process can reach the device, in containers too.
_DEVICE_FILES = {Device.CUDA: ("/dev/nvidiactl", "/dev/dxg"), Device.ROCM: ("/dev/kfd",)}
# ggml's libraries, as llama.cpp puts them beside its own.
_GGML_LIBRARIES = {"ggml-cuda": Device.CUDA, "ggml-hip": Device.ROCM, "ggml-metal": Device.METAL}

Devices = frozenset[Device]
CPU_ONLY: Devices = frozenset({Device.CPU})


def find_device() -> Device:
    """The best device here."""
    if sys.platform == "darwin":
        return Device.METAL if machine() == "arm64" else Device.CPU
    for device, files in _DEVICE_FILES.items():
        if any(Path(file).exists() for file in files):
            return device
    return Device.CPU


def llama_cpp_devices() -> Devices:
    """Those of the llama.cpp that is installed."""
    folder = _folder_of("llama_cpp")
    names = [path.name for path in (folder / "lib").iterdir()] if folder and (folder / "lib").is_dir() else []
    return CPU_ONLY | {device for library, device in _GGML_LIBRARIES.items() if any(library in name for name in names)}


def torch_devices() -> Devices:
    """Those of the torch that is installed, by the version file it carries."""
    folder = _folder_of("torch")
    if folder is None:
        return CPU_ONLY
    if sys.platform == "darwin":
        return CPU_ONLY | {Device.METAL}
    try:
        text = (folder / "version.py").read_text()
    except OSError:
        return CPU_ONLY
    built_for = {"cuda": Device.CUDA, "hip": Device.ROCM}
    return CPU_ONLY | {device for name, device in built_for.items() if re.search(rf"^{name}\b.*= *'", text, re.M)}


def mlx_devices() -> Devices:
    return CPU_ONLY | {Device.METAL} if sys.platform == "darwin" else CPU_ONLY


def _folder_of(package: str) -> Path | None:
    spec = find_spec(package)
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None
