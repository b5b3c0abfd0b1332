"""What is known of the device that models would run on."""

import re
from pathlib import Path

from ops.doctor.check import Check
from workers.runners.devices import Device

_NVIDIA = Path("/proc/driver/nvidia")


def check_device(device: Device, nvidia: Path = _NVIDIA) -> Check:
    facts = _nvidia_facts(nvidia) if device is Device.CUDA else []
    return Check("device", True, "; ".join([str(device), *facts]))


def _nvidia_facts(folder: Path) -> list[str]:
    """Each GPU's name and the driver's version, as far as the driver's own files tell."""
    names = [_field(path, r"^Model:\s*(.+)$") for path in sorted(folder.glob("gpus/*/information"))]
    driver = _field(folder / "version", r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s")
    return [*filter(None, names), *([f"driver {driver}"] if driver else [])]


def _field(path: Path, pattern: str) -> str | None:
    try:
        found = re.search(pattern, path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return found[1].strip() if found else None
