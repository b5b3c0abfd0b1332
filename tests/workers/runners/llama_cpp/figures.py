"""Figures and a clock that tests make up."""

from collections.abc import Callable, Sequence


class MadeUpTimings:
    """Each figure is what a function of the value says; each takes `cost_s` off the time there is.

    From the `stops_at`-th measurement on, all have to stop.
    """

    def __init__(
        self,
        *,
        decode: Callable[[int], float] = lambda threads: 0.01,
        batch: Callable[[int], float] = lambda threads: 0.01,
        prefill: Callable[[int], float] = lambda micro_batch: 0.001,
        room_s: float = 3.0,
        cost_s: float = 0.01,
        stops_at: int | None = None,
        busy: bool = False,
    ) -> None:
        self._figures = {"decode": decode, "batch": batch, "prefill": prefill, "prompt": lambda _: prefill(128)}
        self._room_s = room_s
        self._cost_s = cost_s
        self._stops_at = stops_at
        self._busy = busy
        self.measured: list[tuple[str, int]] = []
        self.prepared: tuple[int, tuple[int, ...], int] | None = None

    def room_s(self) -> float:
        return self._room_s

    def is_busy(self) -> bool:
        return self._busy

    def decode(self, threads: int) -> float | None:
        return self._measure("decode", threads)

    def batch(self, threads: int) -> float | None:
        return self._measure("batch", threads)

    def prompt(self, threads: int) -> float | None:
        return self._measure("prompt", threads)

    def prepare(self, prompt: int, micro_batches: Sequence[int], threads: int) -> None:
        self.prepared = (prompt, tuple(micro_batches), threads)

    def prefill(self, micro_batch: int) -> float | None:
        return self._measure("prefill", micro_batch)

    def _measure(self, what: str, value: int) -> float | None:
        if self._stops_at is not None and len(self.measured) >= self._stops_at:
            return None
        self.measured.append((what, value))
        self._room_s -= self._cost_s
        return self._figures[what](value)
