"""How many prompt tokens fit beside running decodes without making them wait too long."""

from collections import deque
from statistics import median

# A mixed step should take about this many plain decode steps: the worst gap in a stream is then three times the median.
_MEDIAN_STEPS = 2.0
# Before anything was measured, and however slow the runner: a prompt must get on.
_FIRST_CHUNK = 32
_LEAST_CHUNK = 8
_WINDOW = 15
_DECAY = 0.8
# While prompts keep coming there are only mixed steps: one in so many is kept for decodes alone, to measure.
_MEASURE_EVERY = 8


class StepPace:
    """A running estimate of decode step and prefill rate.

    The rate counts all tokens of the steps that held prompt tokens, over their whole time: a little low when decodes
    ran beside, and never wild, as a difference of two noisy times would be.
    """

    __slots__ = ("_decode_steps", "_num_mixed", "_seconds", "_tokens")

    def __init__(self) -> None:
        self._decode_steps: deque[float] = deque(maxlen=_WINDOW)
        self._tokens = 0.0
        self._seconds = 0.0
        self._num_mixed = 0

    @property
    def wants_decodes_only(self) -> bool:
        """Whether the next step with decodes should hold nothing else, because their time is unknown or old."""
        return not self._decode_steps or self._num_mixed >= _MEASURE_EVERY

    def observe(self, num_decodes: int, num_prefill: int, duration_s: float) -> None:
        """Note a forward pass of so many decode and prefill tokens."""
        if num_prefill == 0:
            self._decode_steps.append(duration_s)
            self._num_mixed = 0
            return
        self._num_mixed += num_decodes > 0
        self._tokens = self._tokens * _DECAY + num_prefill + num_decodes
        self._seconds = self._seconds * _DECAY + duration_s

    def prefill_cap(self, budget: int, num_decodes: int = 1, num_behind: int = 1) -> int:
        """The most prefill tokens, out of `budget`, for a step that also decodes.

        Where more sequences wait for their prompt than decode, the bound widens with the square of their ratio: a
        burst would otherwise start one by one, behind the first that came, in steps that are nearly empty.
        """
        if not self._decode_steps or self._seconds <= 0:
            return min(budget, _FIRST_CHUNK)
        pressure = max(1.0, num_behind / num_decodes) ** 2
        cap = pressure * _MEDIAN_STEPS * median(self._decode_steps) * self._tokens / self._seconds
        return min(budget, max(int(cap), _LEAST_CHUNK))
