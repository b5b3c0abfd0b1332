"""Handles, and the llama.cpp sequence behind each.

A handle keeps its id for life; its sequence may change. In split layout a decode runs as few passes as its sequence ids
have gaps, plus one: `llama_batch_allocr::split_equal` takes consecutive ids together and nothing else (8 rows with ids
0, 2, 4 ... take 1.6 times as long as 0, 1, 2 ...; more where memory is the limit). So low ids are given out first, and
`next_move` names the sequence that closes a gap.
"""

import heapq
from typing import NamedTuple

import numpy as np

from workers.runners.base import Handle, IntArray


class Move(NamedTuple):
    handle_id: int
    source: int
    target: int


class HandleTable:
    """`lengths` (tokens) and `sequences` are indexed by handle id; both are ours to read in whole arrays."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.lengths: IntArray = np.zeros(capacity, np.int32)
        self.sequences: IntArray = np.full(capacity, -1, np.int32)
        self._generations = [0] * capacity
        self._free_ids = list(range(capacity))
        self._free_sequences = list(range(capacity))

    def create(self) -> Handle | None:
        """A new handle of length 0, or None when all are in use."""
        if not self._free_ids:
            return None
        handle_id = heapq.heappop(self._free_ids)
        self.sequences[handle_id] = heapq.heappop(self._free_sequences)
        self.lengths[handle_id] = 0
        return Handle(handle_id, self._generations[handle_id])

    def is_live(self, handle: Handle) -> bool:
        return (
            0 <= handle.id < self.capacity
            and self.sequences[handle.id] >= 0
            and self._generations[handle.id] == handle.generation
        )

    def sequence(self, handle: Handle) -> int:
        """The sequence behind a handle. Raises ValueError for one that was released."""
        if not self.is_live(handle):
            raise ValueError(f"{handle} is not in use")
        return int(self.sequences[handle.id])

    def release(self, handle: Handle) -> int | None:
        """Give a handle back. The sequence that it had, to be cleared; None when it was given back before."""
        if not self.is_live(handle):
            return None
        sequence = int(self.sequences[handle.id])
        heapq.heappush(self._free_ids, handle.id)
        heapq.heappush(self._free_sequences, sequence)
        self.sequences[handle.id] = -1
        self._generations[handle.id] += 1
        return sequence

    def next_move(self, handle_ids: IntArray) -> Move | None:
        """The move that makes the sequences of these different handles lie closer; None when they have no free gap."""
        sequences = self.sequences[handle_ids]
        low, high = int(sequences.min()), int(sequences.max())
        if high - low + 1 == len(sequences):
            return None
        gap = min((free for free in self._free_sequences if low < free < high), default=None)
        if gap is None:
            return None
        return Move(int(handle_ids[sequences.argmax()]), high, gap)

    def move(self, move: Move) -> None:
        """Book a move that the KV has made."""
        self._free_sequences.remove(move.target)
        heapq.heapify(self._free_sequences)
        heapq.heappush(self._free_sequences, move.source)
        self.sequences[move.handle_id] = move.target
