"""The invariants of a batch, checked before a backend sees it: llama.cpp answers some breaches by aborting the process,
our own kernels would write where they must not."""

from typing import NamedTuple, Protocol

import numpy as np

from workers.runners.base import Batch, IntArray


class HandleLengths(Protocol):
    """Handles by id: those below `capacity` exist, with their number of tokens."""

    @property
    def capacity(self) -> int: ...

    @property
    def lengths(self) -> IntArray: ...

    def are_live(self, handle_ids: IntArray) -> bool:
        """Whether all of these are in use."""
        ...


class BatchLimits(NamedTuple):
    max_tokens: int
    max_logit_rows: int
    vocab_size: int


class Runs(NamedTuple):
    """One entry per handle in the batch: its id, and how many rows it has."""

    handle_ids: IntArray
    counts: IntArray


def check_batch(batch: Batch, table: HandleLengths, limits: BatchLimits) -> Runs:
    """The batch as runs. Raises ValueError naming the rule that it breaks."""
    num_rows = len(batch.tokens)
    _check_shapes(batch, num_rows, limits)
    ids = batch.handle_ids.tolist()
    if len(set(ids)) == num_rows:
        return _check_decodes(batch, ids, table)
    starts = _run_starts(batch.handle_ids)
    handle_ids = batch.handle_ids[starts]
    counts = np.append(starts[1:], np.int32(num_rows)) - starts
    if handle_ids.min() < 0 or handle_ids.max() >= table.capacity or not table.are_live(handle_ids):
        raise ValueError("a handle of the batch is not in use")
    if len(set(handle_ids.tolist())) != len(handle_ids):
        raise ValueError("the rows of a handle are not contiguous")
    expected = np.arange(num_rows, dtype=np.int32) + np.repeat(table.lengths[handle_ids] - starts, counts)
    if not np.array_equal(batch.positions, expected):
        raise ValueError("the positions of a handle do not start at its length, or are not contiguous")
    return Runs(handle_ids, counts)


def _check_decodes(batch: Batch, ids: list[int], table: HandleLengths) -> Runs:
    """The same for a row of each handle, which most steps are: half the time."""
    handle_ids = batch.handle_ids
    if min(ids) < 0 or max(ids) >= table.capacity or not table.are_live(handle_ids):
        raise ValueError("a handle of the batch is not in use")
    if (table.lengths[handle_ids] != batch.positions).any():
        raise ValueError("the positions of a handle do not start at its length, or are not contiguous")
    return Runs(handle_ids, np.ones(len(ids), np.int32))


def _check_shapes(batch: Batch, num_rows: int, limits: BatchLimits) -> None:
    if not 1 <= num_rows <= limits.max_tokens:
        raise ValueError(f"a batch has from 1 to {limits.max_tokens} rows, not {num_rows}")
    if len(batch.handle_ids) != num_rows or len(batch.positions) != num_rows:
        raise ValueError("tokens, handle_ids and positions differ in length")
    if batch.tokens.min() < 0 or batch.tokens.max() >= limits.vocab_size:
        raise ValueError(f"a token id is outside 0 to {limits.vocab_size - 1}")
    rows = batch.logit_rows
    if len(rows) > limits.max_logit_rows:
        raise ValueError(f"at most {limits.max_logit_rows} rows of logits, not {len(rows)}")
    if len(rows) and (rows[0] < 0 or rows[-1] >= num_rows or (rows[1:] <= rows[:-1]).any()):
        raise ValueError("logit_rows are not ascending row numbers")


def _run_starts(handle_ids: IntArray) -> IntArray:
    changes = np.flatnonzero(handle_ids[1:] != handle_ids[:-1]) + 1
    return np.append(0, changes).astype(np.int32)
