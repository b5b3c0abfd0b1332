"""The order in which the library wants a batch's rows, and back."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from workers.runners.base import Batch, FloatArray, IntArray


class OrderedRows(NamedTuple):
    """Rows as they go into a decode. `ranks`: where each wanted row of logits comes out; None: in order."""

    tokens: IntArray
    positions: IntArray
    sequences: IntArray
    logit_rows: npt.NDArray[np.integer]
    ranks: npt.NDArray[np.integer] | None


def in_sequence_order(batch: Batch, sequences: IntArray) -> OrderedRows:
    """The rows by ascending sequence: a decode in split layout takes only ascending ids in one pass."""
    if (sequences[1:] >= sequences[:-1]).all():
        return as_given(batch, sequences)
    order = np.argsort(sequences, kind="stable")
    new_rows = np.empty_like(order)
    new_rows[order] = np.arange(len(order))
    logit_rows = new_rows[batch.logit_rows]
    ranks = np.argsort(np.argsort(logit_rows))
    return OrderedRows(batch.tokens[order], batch.positions[order], sequences[order], logit_rows, ranks)


def as_given(batch: Batch, sequences: IntArray) -> OrderedRows:
    return OrderedRows(batch.tokens, batch.positions, sequences, batch.logit_rows, None)


class LogitsOrder:
    """Puts rows of logits back into the order asked for, in memory that it keeps."""

    def __init__(self) -> None:
        self._rows: FloatArray = np.empty((0, 0), np.float32)

    def restore(self, logits: FloatArray, ranks: npt.NDArray[np.integer] | None) -> FloatArray:
        """`logits` itself when the order is right, else a copy, valid until the next call."""
        if ranks is None:
            return logits
        if len(self._rows) < len(logits):
            self._rows = np.empty(logits.shape, np.float32)
        # numpy would check the ranks by way of another copy.
        return np.take(logits, ranks, axis=0, out=self._rows[: len(logits)], mode="clip")
