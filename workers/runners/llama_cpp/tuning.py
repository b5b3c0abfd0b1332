"""How many threads a step has and how much of a prompt goes through the graph at once, and what else is worth trying.

Nothing here looks at the machine or the clock.
"""

from dataclasses import dataclass
from typing import NamedTuple

_DEFAULT_MICRO_BATCH = 512
_MICRO_BATCHES = (128, 256, 512, 1024)
# Lengths of a prompt that tells micro-batches apart. The longer ones are closer to what is asked for, and cost more.
_PROMPTS = (1024, 512, 256)


@dataclass(frozen=True, slots=True)
class Tuning:
    """`threads` is for steps of one row, `batch_threads` for those of several: to the library each of them is a batch,
    also when every row is a sequence's next token. `micro_batch` is in tokens.
    """

    threads: int
    batch_threads: int
    micro_batch: int

    @property
    def most_threads(self) -> int:
        return max(self.threads, self.batch_threads)

    @property
    def in_words(self) -> str:
        """For instance `2 threads, micro-batches of 512`."""
        threads = _num_threads(self.batch_threads)
        if self.threads != self.batch_threads:
            threads = f"{_num_threads(self.threads)} for one row and {threads} for more"
        return f"{threads}, micro-batches of {self.micro_batch}"


class Choices(NamedTuple):
    """What may be chosen: `threads` are other counts than that of `default`, and `max_prompt` is how many tokens of a
    prompt can be in one batch.
    """

    default: Tuning
    threads: tuple[int, ...]
    max_prompt: int

    @property
    def are_none(self) -> bool:
        return not self.threads and not self.has_micro_batches

    @property
    def has_micro_batches(self) -> bool:
        return any(self.micro_batches(prompt) for prompt in self.prompts())

    def include(self, tuning: Tuning) -> bool:
        """Whether this can come of them."""
        threads = {self.default.threads, *self.threads}
        micro_batches = {self.default.micro_batch, *_MICRO_BATCHES}
        return {tuning.threads, tuning.batch_threads} <= threads and (
            tuning.micro_batch in micro_batches and tuning.micro_batch <= max(self.max_prompt, self.default.micro_batch)
        )

    def prompts(self) -> list[int]:
        """Lengths to try micro-batches on, the longest first."""
        longest = min(self.max_prompt, _PROMPTS[0])
        return [longest, *(length for length in _PROMPTS if length < longest)]

    def micro_batches(self, prompt: int) -> tuple[int, ...]:
        """Sizes that cut a prompt of this length in another way than the default does."""
        whole = min(self.default.micro_batch, prompt)
        return tuple(size for size in _MICRO_BATCHES if size <= prompt and size != whole)


def untuned(threads: int, batch_tokens: int) -> Tuning:
    """What is taken unless something else was found to be faster."""
    return Tuning(threads, threads, min(_DEFAULT_MICRO_BATCH, batch_tokens))


def fewer_threads(processors: int, cores: int) -> tuple[int, ...]:
    """Counts that can be faster than a thread for each processor, most first.

    Two threads of a core share its arithmetic; a processor left alone is for whoever else is here, as all wait for the
    slowest; and memory may be used up by a half or a quarter of them.
    """
    counts = {cores, processors - 1, processors // 2, processors // 4}
    return tuple(sorted((count for count in counts if 0 < count < processors), reverse=True))


def _num_threads(number: int) -> str:
    return f"{number} thread{'' if number == 1 else 's'}"
