"""How many prompt tokens fit beside running decodes without making them wait too long."""

from collections import deque
from statistics import median

# The prompt tokens beside decodes should take about this many plain decode steps. With the decodes, with what a mixed
# step costs more than its parts, and with an estimate that lags behind as the prompt grows, a gap in a stream then
# stays below three times the median (1,500 tokens beside 8 chats on llama.cpp: 2.4 in the median, 2.8 in 19 of 20; at
# 2.0 it was 3.2 and 3.7).
_MEDIAN_STEPS = 1.4
# Faster than anybody reads. So long a gap is no loss where it helps half as many as it delays, or more.
_READABLE_GAP_S = 0.05
# Before anything was measured, and however slow the runner: a prompt must get on.
_FIRST_CHUNK = 32
_LEAST_CHUNK = 8
_WINDOW = 15
_DECAY = 0.8
# While prompts keep coming there are only mixed steps: one in so many is kept for decodes alone, to measure.
_MEASURE_EVERY = 8


class StepPace:
    """A running estimate of decode step and prefill rate.

    Steps are remembered by how many sequences decoded, since on a processor eight take far longer than one: measured at
    one, the chunks beside eight would be so small that a prompt hardly got on. The rate counts all tokens of the steps
    that held prompt tokens, over their whole time: a little low when decodes ran beside, and never wild, as a
    difference of two noisy times would be.
    """

    __slots__ = ("_decode_steps", "_num_mixed", "_seconds", "_tokens")

    def __init__(self) -> None:
        self._decode_steps: dict[int, deque[float]] = {}
        self._tokens = 0.0
        self._seconds = 0.0
        self._num_mixed = 0

    @property
    def prefill_s(self) -> float | None:
        """Seconds that a token of a prompt takes; None before anything was measured."""
        return self._seconds / self._tokens if self._tokens else None

    def wants_decodes_only(self, num_decodes: int) -> bool:
        """Whether the next step should hold nothing but so many decodes, because their time is unknown or old."""
        return _size_class(num_decodes) not in self._decode_steps or self._num_mixed >= _MEASURE_EVERY

    def observe(self, num_decodes: int, num_prefill: int, duration_s: float) -> None:
        """Note a forward pass of so many decode and prefill tokens."""
        if num_prefill == 0:
            steps = self._decode_steps.setdefault(_size_class(num_decodes), deque(maxlen=_WINDOW))
            steps.append(duration_s)
            self._num_mixed = 0
            return
        self._num_mixed += num_decodes > 0
        self._tokens = self._tokens * _DECAY + num_prefill + num_decodes
        self._seconds = self._seconds * _DECAY + duration_s

    def prefill_cap(self, budget: int, num_decodes: int, num_behind: int, num_missing: int) -> int:
        """The most prefill tokens, out of `budget`, for a step that also decodes.

        `num_behind` sequences wait for `num_missing` tokens of their prompts. When they are no fewer than those that
        decode, and one step can take them all, it does: one long gap for some, and then all go on together. In small
        chunks a burst would trail behind the first that came, in steps that are half empty, and so would the next
        burst, as it comes when this one ends. Where it is too much for a step, the bound widens with the square of
        their ratio. When they are half as many or more, a stream need not be faster than it can be read.
        """
        if num_behind >= num_decodes and num_missing <= budget:
            return budget
        steps = self._decode_steps.get(_size_class(num_decodes))
        if not steps or self._seconds <= 0:
            return min(budget, _FIRST_CHUNK)
        step_s = median(steps)
        chunk_s = max(1.0, num_behind / num_decodes) ** 2 * _MEDIAN_STEPS * step_s
        if 2 * num_behind >= num_decodes:
            chunk_s = max(chunk_s, _READABLE_GAP_S - step_s)
        cap = chunk_s * self._tokens / self._seconds
        return min(budget, max(int(cap), _LEAST_CHUNK))


def _size_class(num_decodes: int) -> int:
    """Doubling classes: 1, 2 to 3, 4 to 7, and so on."""
    return num_decodes.bit_length()
