"""What is measured, in which order, and what follows from it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from workers.runners.llama_cpp.comparison import Comparison, Ending, compare
from workers.runners.llama_cpp.tuning import Choices, Tuning

_STEP_ROUNDS = 3
# A prompt takes so long that it is an average by itself.
_PROMPT_ROUNDS = 2


class Timings(Protocol):
    """Seconds for a token, measured. None: the measurement had to stop, and so will every other."""

    def room_s(self) -> float:
        """Seconds that are left for measuring."""
        ...

    def is_busy(self) -> bool:
        """Whether others had the processors, so that the figures are about them."""
        ...

    def decode(self, threads: int) -> float | None:
        """In steps of one row."""
        ...

    def batch(self, threads: int) -> float | None:
        """In a prompt, and in steps of some rows: the sum of both."""
        ...

    def prompt(self, threads: int) -> float | None:
        """In a short prompt."""
        ...

    def prepare(self, prompt: int, micro_batches: Sequence[int], threads: int) -> None:
        """Make ready for a prompt of so many tokens in each of these."""
        ...

    def prefill(self, micro_batch: int) -> float | None:
        """In that prompt."""
        ...


class Outcome(NamedTuple):
    """`findings` are for an operator. `is_final`: measured anew, it would be the same."""

    tuning: Tuning
    findings: str
    is_final: bool


def tune(choices: Choices, timings: Timings) -> Outcome:
    """One figure after the other until there is no time. What was not measured to its end stays as by default; on a
    busy machine all does.
    """
    default = choices.default
    decode = _compare_threads(choices, timings.decode, timings)
    batch = _after(decode, default.batch_threads, lambda: _compare_threads(choices, timings.batch, timings))
    prefill = _after(batch, default.micro_batch, lambda: _compare_micro_batches(choices, batch.chosen, timings))
    if timings.is_busy():
        return Outcome(default, "others have the processors, so that nothing could be measured", is_final=False)
    findings = [
        *_told("a token alone takes", "with", decode),
        *_told("one of a prompt and one of several at once take together", "with", batch),
        *_told("one of a longer prompt takes", "in parts of", prefill),
    ]
    if prefill.ending is not Ending.MEASURED:
        findings.append("the rest would take too long" if prefill.ending is Ending.TOO_LONG else "then it had to stop")
    tuning = Tuning(decode.chosen, batch.chosen, prefill.chosen)
    return Outcome(tuning, "; ".join(findings), is_final=prefill.ending is not Ending.CUT_SHORT)


def _after(before: Comparison, default: int, go_on: Callable[[], Comparison]) -> Comparison:
    """The next one takes longer than the one before it."""
    return go_on() if before.ending is Ending.MEASURED else Comparison(before.ending, default, {})


def _compare_threads(choices: Choices, measure: Callable[[int], float | None], timings: Timings) -> Comparison:
    return compare(choices.default.threads, choices.threads, measure, timings.room_s, rounds=_STEP_ROUNDS)


def _compare_micro_batches(choices: Choices, threads: int, timings: Timings) -> Comparison:
    default = choices.default.micro_batch
    if not choices.has_micro_batches:
        return Comparison(Ending.MEASURED, default, {})
    token_s = timings.prompt(threads)
    if token_s is None:
        return Comparison(Ending.CUT_SHORT, default, {})
    prompt = _affordable_prompt(choices, token_s, timings.room_s())
    if prompt is None:
        return Comparison(Ending.TOO_LONG, default, {})
    others = choices.micro_batches(prompt)
    timings.prepare(prompt, (default, *others), threads)
    return compare(default, others, timings.prefill, timings.room_s, rounds=_PROMPT_ROUNDS)


def _affordable_prompt(choices: Choices, token_s: float, room_s: float) -> int | None:
    """The longest prompt that there is time to compute in all its micro-batches, in all rounds."""
    for prompt in choices.prompts():
        others = choices.micro_batches(prompt)
        if others and _PROMPT_ROUNDS * (1 + len(others)) * prompt * token_s <= room_s:
            return prompt
    return None


def _told(what: str, how: str, comparison: Comparison) -> list[str]:
    """For instance `a token alone takes 5.05 ms with 2, 5.85 ms with 1`."""
    times = [f"{seconds * 1e3:.2f} ms {how} {value}" for value, seconds in comparison.fastest_s.items()]
    return [f"{what} {', '.join(times)}"] if times else []
