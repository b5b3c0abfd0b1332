"""Changes to a row of logits that depend on what the sequence has said."""

from collections.abc import Iterable

import numpy as np

from schemas.requests import SamplingParams
from workers.runners.base import FloatArray


class _TokenCounts:
    """How often each token occurred, as growing arrays that numpy can index with."""

    __slots__ = ("_counts", "_ids", "_slots")

    def __init__(self, token_ids: Iterable[int]) -> None:
        self._slots: dict[int, int] = {}
        self._ids = np.empty(64, np.int64)
        self._counts = np.empty(64, np.float32)
        for token_id in token_ids:
            self.add(token_id)

    def add(self, token_id: int) -> None:
        slot = self._slots.get(token_id)
        if slot is not None:
            self._counts[slot] += 1
            return
        slot = self._slots[token_id] = len(self._slots)
        if slot == len(self._ids):
            self._ids = np.concatenate((self._ids, np.empty_like(self._ids)))
            self._counts = np.concatenate((self._counts, np.empty_like(self._counts)))
        self._ids[slot] = token_id
        self._counts[slot] = 1

    @property
    def ids(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return self._ids[: len(self._slots)]

    @property
    def counts(self) -> FloatArray:
        return self._counts[: len(self._slots)]


class LogitEdits:
    """Logit bias and penalties of one sequence, in vLLM's order: bias, repetition, frequency, presence.

    Repetition (Keskar et al., CTRL, arXiv:1909.05858, as in Hugging Face and vLLM) divides a positive and multiplies a
    negative logit of every token in prompt or output. Frequency and presence (OpenAI's definition) count output tokens
    only: `logit - frequency * count - presence * (count > 0)`.
    """

    __slots__ = ("_bias", "_bias_ids", "_frequency", "_output", "_presence", "_repetition", "_seen")

    def __init__(self, params: SamplingParams, prompt_ids: Iterable[int]) -> None:
        bias = dict(params.logit_bias)
        self._bias_ids = np.fromiter(bias.keys(), np.int64)
        self._bias = np.fromiter(bias.values(), np.float32)
        self._repetition = np.float32(params.repetition_penalty)
        self._frequency = np.float32(params.frequency_penalty)
        self._presence = np.float32(params.presence_penalty)
        self._seen = _TokenCounts(set(prompt_ids)) if params.repetition_penalty != 1.0 else None
        counts_output = params.frequency_penalty != 0.0 or params.presence_penalty != 0.0
        self._output = _TokenCounts(()) if counts_output else None

    @property
    def is_neutral(self) -> bool:
        return self._seen is None and self._output is None and not len(self._bias_ids)

    def observe(self, token_id: int) -> None:
        """Note an output token."""
        if self._seen is not None:
            self._seen.add(token_id)
        if self._output is not None:
            self._output.add(token_id)

    def apply(self, row: FloatArray) -> None:
        """Change the row in place."""
        if len(self._bias_ids):
            row[self._bias_ids] += self._bias
        if self._seen is not None:
            ids = self._seen.ids
            values = row[ids]
            row[ids] = np.where(values > 0, values / self._repetition, values * self._repetition)
        if self._output is not None:
            row[self._output.ids] -= self._frequency * self._output.counts + self._presence
