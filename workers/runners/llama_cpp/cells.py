"""Which cells of a unified KV buffer are taken, and by how many handles."""

import numpy as np

from workers.runners.base import IntArray


class CellLedger:
    """Our own count of what `llama_kv_cells` holds: the cell numbers are ours, how many there are is not."""

    def __init__(self, num_handles: int, max_length: int, num_cells: int) -> None:
        self._cells: IntArray = np.zeros((num_handles, max_length), np.int32)
        self._holders: IntArray = np.zeros(num_cells, np.int32)
        self._free: IntArray = np.arange(num_cells, dtype=np.int32)
        self.num_free = num_cells

    def append(self, handle_ids: IntArray, positions: IntArray) -> None:
        """A new cell for each row."""
        top = self.num_free
        self.num_free = top - len(positions)
        cells = self._free[self.num_free : top]
        self._cells[handle_ids, positions] = cells
        self._holders[cells] = 1

    def share(self, source_id: int, target_id: int, num_tokens: int) -> None:
        """An empty handle takes the first cells of another along with it."""
        cells = self._cells[source_id, :num_tokens]
        self._cells[target_id, :num_tokens] = cells
        self._holders[cells] += 1

    def fault(self, lengths: dict[int, int]) -> str:
        """Whether each cell is free, or held as often as handles of these lengths have it; else the numbers."""
        held = np.zeros_like(self._holders)
        for handle_id, length in lengths.items():
            np.add.at(held, self._cells[handle_id, :length], 1)
        num_wrong = int((held != self._holders).sum())
        free = self._free[: self.num_free]
        num_lost = int((held == 0).sum()) - len(set(free.tolist()))
        num_taken = int((held[free] > 0).sum())
        if num_wrong or num_lost or num_taken:
            return f"cells with a wrong count {num_wrong}, neither free nor held {num_lost}, free and held {num_taken}"
        return ""

    def drop(self, handle_id: int, start: int, end: int) -> None:
        """A handle lets go of its cells from `start` to `end`."""
        cells = self._cells[handle_id, start:end]
        self._holders[cells] -= 1
        freed = cells[self._holders[cells] == 0]
        self._free[self.num_free : self.num_free + len(freed)] = freed
        self.num_free += len(freed)
