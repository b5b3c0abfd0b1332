"""A batch cut into the runs of its handles."""

from typing import NamedTuple

import numpy as np

from workers.runners.base import Batch
from workers.runners.batch_rules import BatchLimits, check_batch
from workers.runners.mlx.handles import HandleTable
from workers.runners.mlx.sequence_kv import SequenceKv


class Run(NamedTuple):
    """The rows from `start` on that belong to one handle, and which of them, counted from `start`, want logits."""

    sequence: SequenceKv
    start: int
    tokens: list[int]
    logit_rows: list[int]

    @property
    def end_length(self) -> int:
        """The handle's length once the run is done."""
        return self.sequence.length + len(self.tokens)


def cut_batch(batch: Batch, table: HandleTable, limits: BatchLimits) -> list[Run]:
    """Raises ValueError naming the rule that the batch breaks."""
    runs, start = [], 0
    for handle_id, count in zip(*(array.tolist() for array in check_batch(batch, table, limits)), strict=True):
        end = start + count
        first, last = np.searchsorted(batch.logit_rows, [start, end])
        wanted = (batch.logit_rows[first:last] - start).tolist()
        runs.append(Run(table.by_id(handle_id), start, batch.tokens[start:end].tolist(), wanted))
        start = end
    return runs
