"""A step as a value, and its form for the runner."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from workers.engine.sequence import Sequence
from workers.runners.base import Batch


class PlanItem(NamedTuple):
    """Compute `num_tokens` more tokens of a sequence.

    `is_prefill`: it has more than one to catch up with. `wants_logits`: it will then have caught up.
    """

    sequence: Sequence
    num_tokens: int
    is_prefill: bool
    wants_logits: bool

    @property
    def num_prompt(self) -> int:
        """How many of the tokens are prompt, before they are computed."""
        done, prompt = self.sequence.num_computed, self.sequence.num_prompt
        return max(0, min(prompt - done, self.num_tokens))


@dataclass(slots=True)
class StepPlan:
    """What the next forward pass computes: decodes, then prefill chunks by order of service."""

    items: list[PlanItem] = field(default_factory=list)
    num_decodes: int = 0
    num_prefill: int = 0

    @property
    def request_ids(self) -> frozenset[str]:
        return frozenset(item.sequence.request_id for item in self.items)

    def add(self, sequence: Sequence, count: int) -> None:
        missing = sequence.num_uncomputed
        is_prefill = missing > 1
        self.items.append(PlanItem(sequence, count, is_prefill, count == missing))
        if is_prefill:
            self.num_prefill += count
        else:
            self.num_decodes += count

    def drop_last(self) -> PlanItem:
        """Take the item served last out again."""
        item = self.items.pop()
        if item.is_prefill:
            self.num_prefill -= item.num_tokens
        else:
            self.num_decodes -= item.num_tokens
        return item


class BatchBuilder:
    """Turns plans into the runner's arrays. They are views of buffers that the next `build` overwrites."""

    __slots__ = ("_handle_ids", "_logit_rows", "_positions", "_ramp", "_tokens")

    def __init__(self, max_batch_tokens: int) -> None:
        self._tokens = np.zeros(max_batch_tokens, np.int32)
        self._handle_ids = np.zeros(max_batch_tokens, np.int32)
        self._positions = np.zeros(max_batch_tokens, np.int32)
        self._logit_rows = np.zeros(max_batch_tokens, np.int32)
        self._ramp = np.arange(max_batch_tokens, dtype=np.int32)

    def build(self, plan: StepPlan) -> Batch:
        row = 0
        num_logits = 0
        for sequence, count, is_prefill, wants_logits in plan.items:
            assert sequence.handle is not None
            start = sequence.num_computed
            if is_prefill:
                end = row + count
                self._tokens[row:end] = sequence.token_ids[start : start + count]
                self._handle_ids[row:end] = sequence.handle.id
                np.add(self._ramp[:count], start, out=self._positions[row:end])
            else:
                self._tokens[row] = sequence.token_ids[start]
                self._handle_ids[row] = sequence.handle.id
                self._positions[row] = start
            row += count
            if wants_logits:
                self._logit_rows[num_logits] = row - 1
                num_logits += 1
        return Batch(
            tokens=self._tokens[:row],
            handle_ids=self._handle_ids[:row],
            positions=self._positions[:row],
            logit_rows=self._logit_rows[:num_logits],
        )
