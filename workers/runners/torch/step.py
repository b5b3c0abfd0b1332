"""A batch with its pages, as a decoder takes it."""

from dataclasses import dataclass

import numpy as np

from workers.runners.base import Batch, IntArray
from workers.runners.batch_rules import Runs
from workers.runners.torch.page_tables import PageTables
from workers.runners.torch.pages import PAGE_SIZE


@dataclass(frozen=True, slots=True)
class Step:
    """One entry per row: `tokens`, `positions`. One per sequence: `starts` (its first row), `counts` (its rows),
    `lengths` (its tokens with these), and a row of `tables`: the pages that hold them, and others behind.
    """

    tokens: IntArray
    positions: IntArray
    logit_rows: IntArray
    starts: IntArray
    counts: IntArray
    lengths: IntArray
    tables: IntArray

    @property
    def slots(self) -> IntArray:
        """Where each row's key and value go: page times PAGE_SIZE, plus the place within."""
        sequences = np.repeat(np.arange(len(self.counts)), self.counts)
        return self.tables[sequences, self.positions // PAGE_SIZE] * PAGE_SIZE + self.positions % PAGE_SIZE


def make_step(batch: Batch, runs: Runs, tables: PageTables) -> Step:
    """After the tables have grown for it."""
    lengths = tables.lengths[runs.handle_ids] + runs.counts
    num_pages = -(-int(lengths.max()) // PAGE_SIZE)
    ends = np.cumsum(runs.counts, dtype=np.int32)
    return Step(
        tokens=batch.tokens,
        positions=batch.positions,
        logit_rows=batch.logit_rows,
        starts=ends - runs.counts,
        counts=runs.counts,
        lengths=lengths,
        tables=tables.tables[runs.handle_ids, :num_pages],
    )
