"""Outcomes made up for tests of what follows from them."""

from ops.calibration.verdict import Figures, Outcome


def measured(
    backend: str, decode: float, prefill: float = 1000.0, memory_bytes: int = 10**9, waited: float = 0.0
) -> Outcome:
    figures = Figures(
        sequences=16,
        decode=decode,
        decode_alone=decode / 4,
        prefill=prefill,
        memory_bytes=memory_bytes,
        waited=waited,
    )
    return Outcome(backend=backend, figures=figures)


def failed(backend: str, reason: str = "its process ended with SIGSEGV") -> Outcome:
    return Outcome(backend=backend, reason=reason)
