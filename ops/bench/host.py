"""The machine the figures were taken on."""

import os
import platform
from dataclasses import dataclass

from workers.runners.machine import available_bytes, num_processors, processor

# What decides which kernels a CPU backend has. Shown with yes or no; nothing depends on them here.
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16")


@dataclass(frozen=True, slots=True)
class Host:
    """`load_average` is that of the minute before the run: above a few tenths, something else was busy."""

    processor: str
    num_processors: int
    features: dict[str, bool]
    available_bytes: int
    load_average: float
    system: str
    python: str


def this_host() -> Host:
    machine = processor()
    return Host(
        processor=machine.name or platform.processor() or platform.machine(),
        num_processors=num_processors(),
        features={name: name in machine.flags for name in FEATURES},
        available_bytes=available_bytes(),
        load_average=os.getloadavg()[0],
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )
