"""Handles, and the llama.cpp sequence behind each.

A handle keeps its id for life; its sequence may change. In split layout a decode runs as few passes as its sequence ids
have gaps, plus one: `llama_batch_allocr::split_equal` takes consecutive ids together and nothing else (8 rows with ids
0, 2, 4 ... take 1.6 times as long as 0, 1, 2 ...; more where memory is the limit). So low ids are given out first, and
`next_move` names the sequence that closes a gap, if need be in exchange with one that only keeps KV.
"""

import heapq
from typing import NamedTuple

import numpy as np

from workers.runners.base import Handle, IntArray

# A handle that was in none of so many batches keeps its KV for later: it may be moved out of the way.
_IDLE_BATCHES = 8


class Move(NamedTuple):
    """`idle_id`: whose sequence is at `target`, and goes to `source` in exchange; None when it is free."""

    handle_id: int
    source: int
    target: int
    idle_id: int | None = None


class HandleTable:
    """`lengths` (tokens) and `sequences` are indexed by handle id; both are ours to read in whole arrays."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.lengths: IntArray = np.zeros(capacity, np.int32)
        self.sequences: IntArray = np.full(capacity, -1, np.int32)
        self._owners: IntArray = np.full(capacity, -1, np.int32)  # handle ids by sequence
        self._used_at: IntArray = np.zeros(capacity, np.int32)  # the number of the last batch, by handle id
        self._num_batches = 0
        self._generations = [0] * capacity
        self._free_ids = list(range(capacity))
        self._free_sequences = list(range(capacity))

    def create(self) -> Handle | None:
        """A new handle of length 0, or None when all are in use."""
        if not self._free_ids:
            return None
        handle_id = heapq.heappop(self._free_ids)
        sequence = heapq.heappop(self._free_sequences)
        self.sequences[handle_id] = sequence
        self._owners[sequence] = handle_id
        self._used_at[handle_id] = self._num_batches
        self.lengths[handle_id] = 0
        return Handle(handle_id, self._generations[handle_id])

    def is_live(self, handle: Handle) -> bool:
        return (
            0 <= handle.id < self.capacity
            and self.sequences[handle.id] >= 0
            and self._generations[handle.id] == handle.generation
        )

    def are_live(self, handle_ids: IntArray) -> bool:
        """Whether all of these ids are in use."""
        return not (self.sequences[handle_ids] < 0).any()

    def sequence(self, handle: Handle) -> int:
        """The sequence behind a handle. Raises ValueError for one that was released."""
        if not self.is_live(handle):
            raise ValueError(f"{handle} is not in use")
        return int(self.sequences[handle.id])

    def live(self) -> list[Handle]:
        """The handles in use."""
        return [Handle(i, self._generations[i]) for i in np.flatnonzero(self.sequences >= 0).tolist()]

    def release(self, handle: Handle) -> int | None:
        """Give a handle back. The sequence that it had, to be cleared; None when it was given back before."""
        if not self.is_live(handle):
            return None
        sequence = int(self.sequences[handle.id])
        heapq.heappush(self._free_ids, handle.id)
        heapq.heappush(self._free_sequences, sequence)
        self.sequences[handle.id] = self._owners[sequence] = -1
        self._generations[handle.id] += 1
        return sequence

    def next_move(self, handle_ids: IntArray) -> Move | None:
        """The move that makes the sequences of these different handles, the next batch, lie closer; None when no gap
        between them can be closed.
        """
        self._num_batches += 1
        self._used_at[handle_ids] = self._num_batches
        sequences = self.sequences[handle_ids]
        low, high = int(sequences.min()), int(sequences.max())
        if high - low + 1 == len(sequences):
            return None
        mover = int(handle_ids[sequences.argmax()])
        gap = min((free for free in self._free_sequences if low < free < high), default=None)
        if gap is not None:
            return Move(mover, high, gap)
        between = self._owners[low:high]
        idle = between[(between >= 0) & (self._used_at[between] < self._num_batches - _IDLE_BATCHES)]
        if len(idle) == 0:
            return None
        idle_id = int(idle[self.lengths[idle].argmin()])
        return Move(mover, high, int(self.sequences[idle_id]), idle_id)

    def move(self, move: Move) -> None:
        """Book a move that the KV has made."""
        self.sequences[move.handle_id] = move.target
        self._owners[move.target] = move.handle_id
        if move.idle_id is not None:
            self.sequences[move.idle_id] = move.source
            self._owners[move.source] = move.idle_id
            return
        self._owners[move.source] = -1
        self._free_sequences.remove(move.target)
        heapq.heapify(self._free_sequences)
        heapq.heappush(self._free_sequences, move.source)
