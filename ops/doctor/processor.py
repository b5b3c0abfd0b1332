"""What the processor can do, which decides how fast a CPU backend is."""

from ops.doctor.check import Check
from workers.runners.machine import Processor, available_bytes, num_processors, processor

# In the order in which backends make use of them.
_FEATURES = ("avx", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "sve")


def check_processor() -> Check:
    found = processor()
    return Check("processor", True, _describe(found, num_processors(), available_bytes()))


def _describe(found: Processor, number: int, memory: int) -> str:
    features = " ".join(name for name in _FEATURES if name in found.flags) or "features unknown"
    return f"{number} of {found.name or 'unknown make'}; {features}; {memory / 2**30:.1f} GiB of memory available"
