"""Handles, and the keys and values behind each."""

import heapq

import numpy as np

from workers.runners.base import Handle, IntArray, RunnerBooks
from workers.runners.mlx.sequence_kv import KvLayout, SequenceKv


class HandleTable:
    """A handle that is not in use is a ValueError, except that `release` ignores it."""

    def __init__(self, capacity: int, layout: KvLayout) -> None:
        self._layout = layout
        self._sequences: list[SequenceKv | None] = [None] * capacity
        self._generations = [0] * capacity
        self._free_ids = list(range(capacity))

    @property
    def capacity(self) -> int:
        return len(self._sequences)

    @property
    def lengths(self) -> IntArray:
        """By handle id; 0 for those not in use."""
        return np.array([0 if sequence is None else sequence.length for sequence in self._sequences], np.int32)

    def are_live(self, handle_ids: IntArray) -> bool:
        return all(self._sequences[handle_id] is not None for handle_id in handle_ids.tolist())

    @property
    def num_tokens(self) -> int:
        """Of all handles together."""
        return sum(sequence.length for sequence in self._sequences if sequence is not None)

    @property
    def has_free(self) -> bool:
        return bool(self._free_ids)

    def create(self, sequence: SequenceKv | None = None) -> Handle | None:
        """A new handle, empty unless something is given to it; None when all are in use."""
        if not self._free_ids:
            return None
        handle_id = heapq.heappop(self._free_ids)
        self._sequences[handle_id] = sequence or SequenceKv(self._layout)
        return Handle(handle_id, self._generations[handle_id])

    def release(self, handle: Handle) -> None:
        if self._find(handle) is None:
            return
        self._sequences[handle.id] = None
        self._generations[handle.id] += 1
        heapq.heappush(self._free_ids, handle.id)

    def get(self, handle: Handle) -> SequenceKv:
        sequence = self._find(handle)
        if sequence is None:
            raise ValueError(f"{handle} is not in use")
        return sequence

    def by_id(self, handle_id: int) -> SequenceKv:
        """Of a handle in use."""
        sequence = self._sequences[handle_id]
        assert sequence is not None
        return sequence

    def books(self) -> RunnerBooks:
        lengths = {
            Handle(handle_id, self._generations[handle_id]): sequence.length
            for handle_id, sequence in enumerate(self._sequences)
            if sequence is not None
        }
        return RunnerBooks(lengths, len(self._free_ids))

    def _find(self, handle: Handle) -> SequenceKv | None:
        if not 0 <= handle.id < len(self._sequences) or self._generations[handle.id] != handle.generation:
            return None
        return self._sequences[handle.id]
