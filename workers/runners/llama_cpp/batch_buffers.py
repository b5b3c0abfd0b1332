"""The library's batch struct, seen as numpy arrays."""

import ctypes

import numpy as np
import numpy.typing as npt

from workers.runners.base import IntArray
from workers.runners.llama_cpp.library import Library


class BatchBuffers:
    """One `llama_batch`, allocated once and filled for each decode. Every row belongs to one sequence."""

    def __init__(self, library: Library, capacity: int) -> None:
        self._api = library.api
        self.batch = self._api.llama_batch_init(capacity, 0, 1)
        self._tokens = np.ctypeslib.as_array(self.batch.token, (capacity,))
        self._positions = np.ctypeslib.as_array(self.batch.pos, (capacity,))
        self._wants_logits = np.ctypeslib.as_array(self.batch.logits, (capacity,))
        np.ctypeslib.as_array(self.batch.n_seq_id, (capacity,))[:] = 1
        # The struct wants a pointer per row; ours point into one array, so that a row's sequence is one assignment too.
        self._sequences: IntArray = np.zeros(capacity, np.int32)
        address_type = ctypes.POINTER(ctypes.c_uint64)
        self._pointers = np.ctypeslib.as_array(ctypes.cast(self.batch.seq_id, address_type), (capacity,))
        self._own_pointers = self._pointers.copy()
        self._pointers[:] = self._sequences.ctypes.data + np.arange(capacity, dtype=np.uint64) * np.uint64(4)

    def fill(
        self, tokens: IntArray, positions: IntArray, sequences: IntArray, logit_rows: npt.NDArray[np.integer]
    ) -> None:
        """One value per row, all in the same order; `logit_rows` are row numbers."""
        num_rows = len(tokens)
        self.batch.n_tokens = num_rows
        self._tokens[:num_rows] = tokens
        self._positions[:num_rows] = positions
        self._sequences[:num_rows] = sequences
        self._wants_logits[:num_rows] = 0
        self._wants_logits[logit_rows] = 1

    def close(self) -> None:
        """Free the struct. The library frees the pointers that it made, so they must be back in place."""
        self._pointers[:] = self._own_pointers
        self._api.llama_batch_free(self.batch)
