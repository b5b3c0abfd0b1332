"""What this machine has: processors and memory, as far as this process may use them."""

import hashlib
import math
import os
import re
from pathlib import Path
from typing import NamedTuple

_CGROUP = Path("/sys/fs/cgroup")
_PROCESSORS = Path("/sys/devices/system/cpu")


class Processor(NamedTuple):
    name: str
    flags: frozenset[str]

    @property
    def has_amx(self) -> bool:
        return any(flag.startswith("amx") for flag in self.flags)

    @property
    def identity(self) -> str:
        """Name and flags, the latter as a digest: what was tried or measured on one may be different on another."""
        return f"{self.name} {hashlib.sha256(' '.join(sorted(self.flags)).encode()).hexdigest()[:16]}"


def processor() -> Processor:
    """Name and feature flags of the processor; without flags where the system does not tell."""
    text = _read(Path("/proc/cpuinfo"))
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    return Processor(name[1].strip() if name else "", frozenset(flags[1].split()) if flags else frozenset())


def num_processors() -> int:
    """Processors this process may use: affinity, and the container's quota."""
    count = len(_usable())
    quota = _read(_CGROUP / "cpu.max").split()
    if len(quota) == 2 and quota[0] != "max":
        count = min(count, math.ceil(int(quota[0]) / int(quota[1])))
    return max(1, count)


def num_cores(processors: Path = _PROCESSORS) -> int:
    """Cores that these processors are in, of which some have two; as many as processors where the system does not
    tell."""
    cores = {_read(processors / f"cpu{number}" / "topology" / "thread_siblings_list") for number in _usable()}
    return num_processors() if "" in cores else min(len(cores), num_processors())


def available_bytes() -> int:
    """Memory that can be taken without swapping; half of all of it where the system does not tell."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB", _read(Path("/proc/meminfo")), re.MULTILINE)
    if not match:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    available = int(match[1]) * 1024
    limit = _read(_CGROUP / "memory.max").strip()
    if limit.isdigit():
        used = int(_read(_CGROUP / "memory.current") or 0)
        reclaimable = re.search(r"^inactive_file (\d+)$", _read(_CGROUP / "memory.stat"), re.MULTILINE)
        available = min(available, int(limit) - used + (int(reclaimable[1]) if reclaimable else 0))
    return max(0, available)


def _usable() -> set[int]:
    """Numbers of the processors that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return affinity(0) if affinity else set(range(os.cpu_count() or 1))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
