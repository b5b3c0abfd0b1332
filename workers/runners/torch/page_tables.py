"""Handles, and the pages behind each.

A handle is a row of `tables`: page numbers, of which the first `num_pages(length)` count. Pages are shared between
handles; one that is written to has a single holder.
"""

from typing import NamedTuple

import numpy as np

from workers.runners.base import Handle, IntArray, RunnerBooks
from workers.runners.torch.pages import PAGE_SIZE, PagePool, num_pages


class PageCopy(NamedTuple):
    """Contents that must move before the next write."""

    source: int
    target: int


class PageTables:
    """Owns the pool and all page tables. `lengths` (tokens) and `tables` are indexed by handle id, `is_live` too."""

    def __init__(self, pool: PagePool, capacity: int, max_tokens: int) -> None:
        self.pool = pool
        self.capacity = capacity
        self.max_tokens = max_tokens
        self.lengths: IntArray = np.zeros(capacity, np.int32)
        self.tables: IntArray = np.zeros((capacity, num_pages(max_tokens)), np.int32)
        self.is_live = np.zeros(capacity, np.bool_)
        self._generations = [0] * capacity
        self._free_ids = list(range(capacity - 1, -1, -1))

    def create(self) -> Handle | None:
        """A new handle of length 0, or None when all are in use."""
        if not self._free_ids:
            return None
        handle_id = self._free_ids.pop()
        self.is_live[handle_id] = True
        self.lengths[handle_id] = 0
        return Handle(handle_id, self._generations[handle_id])

    def are_live(self, handle_ids: IntArray) -> bool:
        """Whether all of these ids are in use."""
        return bool(self.is_live[handle_ids].all())

    def create_with(self, num_tokens: int) -> Handle | None:
        """A new handle of this length, with pages of its own; None when there is no handle, or not the pages."""
        count = num_pages(num_tokens)
        if not self._free_ids or count > self.pool.num_free:
            return None
        handle = self.create()
        pages = self.pool.take(count)
        assert handle is not None and pages is not None
        self.tables[handle.id, :count] = pages
        self.lengths[handle.id] = num_tokens
        return handle

    def owns(self, handle: Handle) -> bool:
        return (
            0 <= handle.id < self.capacity
            and bool(self.is_live[handle.id])
            and self._generations[handle.id] == handle.generation
        )

    def length(self, handle: Handle) -> int:
        """Raises ValueError for a handle that was released."""
        if not self.owns(handle):
            raise ValueError(f"{handle} is not in use")
        return int(self.lengths[handle.id])

    def release(self, handle: Handle) -> None:
        """Give a handle and its pages back. A stale one is ignored."""
        if not self.owns(handle):
            return
        self.truncate(handle, 0)
        self.is_live[handle.id] = False
        self._generations[handle.id] += 1
        self._free_ids.append(handle.id)

    def pages(self, handle: Handle) -> IntArray:
        """A view of a handle's page numbers."""
        return self.tables[handle.id, : num_pages(self.length(handle))]

    def truncate(self, handle: Handle, num_tokens: int) -> None:
        self.check_cut(handle, num_tokens)
        first, end = num_pages(num_tokens), num_pages(int(self.lengths[handle.id]))
        if first < end:
            self.pool.drop(self.tables[handle.id, first:end])
        self.lengths[handle.id] = num_tokens

    def fork(self, handle: Handle, num_tokens: int) -> tuple[Handle, PageCopy | None] | None:
        """A handle that shares the whole pages of a prefix and has a page of its own for the rest, to be copied into.

        None when there is no handle, or no page.
        """
        self.check_cut(handle, num_tokens)
        num_whole, has_rest = num_tokens // PAGE_SIZE, num_tokens % PAGE_SIZE > 0
        if not self._free_ids or (has_rest and not self.pool.num_free):
            return None
        fork = self.create()
        assert fork is not None
        source, target = self.tables[handle.id], self.tables[fork.id]
        target[:num_whole] = source[:num_whole]
        self.pool.share(target[:num_whole])
        self.lengths[fork.id] = num_tokens
        if not has_rest:
            return fork, None
        target[num_whole] = self._take_one()
        return fork, PageCopy(int(source[num_whole]), int(target[num_whole]))

    def pages_needed(self, handle_ids: IntArray, counts: IntArray) -> int:
        """Pages that must be free for these different handles to grow so far."""
        lengths = self.lengths[handle_ids]
        grown = (lengths + counts + PAGE_SIZE - 1) // PAGE_SIZE - (lengths + PAGE_SIZE - 1) // PAGE_SIZE
        return int(grown.sum()) + self._copies_needed(handle_ids, lengths)

    def grow(self, handle_ids: IntArray, counts: IntArray) -> list[PageCopy]:
        """Give each handle the pages for so many tokens more; the caller has seen that there are enough.

        Lengths stay: `advance` makes the tokens count, `shrink` takes the pages back. A shared page that would be
        written to is exchanged for one to be copied into.
        """
        copies = [] if not self._copies_needed(handle_ids, self.lengths[handle_ids]) else self._unshare(handle_ids)
        lengths = self.lengths[handle_ids]
        first = (lengths + PAGE_SIZE - 1) // PAGE_SIZE
        end = (lengths + counts + PAGE_SIZE - 1) // PAGE_SIZE
        for at in np.flatnonzero(end > first):
            table, start, stop = self.tables[handle_ids[at]], int(first[at]), int(end[at])
            pages = self.pool.take(stop - start, after=int(table[start - 1]) if start else -1)
            assert pages is not None
            table[start:stop] = pages
        return copies

    def advance(self, handle_ids: IntArray, counts: IntArray) -> None:
        self.lengths[handle_ids] += counts

    def shrink(self, handle_ids: IntArray, counts: IntArray) -> None:
        """Undo `grow`."""
        for handle_id, count in zip(handle_ids.tolist(), counts.tolist(), strict=True):
            length = int(self.lengths[handle_id])
            self.pool.drop(self.tables[handle_id, num_pages(length) : num_pages(length + count)])

    def check_cut(self, handle: Handle, num_tokens: int) -> None:
        """Raises ValueError unless the handle has a prefix of this length."""
        length = self.length(handle)
        if not 0 <= num_tokens <= length:
            raise ValueError(f"{handle} has {length} tokens, not {num_tokens}")

    def books(self) -> RunnerBooks:
        """The handles in use, and whether every page is either free or held by those who have it."""
        live = np.flatnonzero(self.is_live).tolist()
        lengths = {Handle(i, self._generations[i]): int(self.lengths[i]) for i in live}
        fault = self.pool.fault(self.tables[i, : num_pages(int(self.lengths[i]))] for i in live)
        return RunnerBooks(lengths, len(self._free_ids), fault)

    def _take_one(self) -> int:
        pages = self.pool.take(1)
        assert pages is not None
        return pages[0]

    def _last_pages(self, handle_ids: IntArray, lengths: IntArray) -> IntArray:
        """The partly filled page of each handle that has one and shares it."""
        partial = lengths % PAGE_SIZE > 0
        pages = self.tables[handle_ids[partial], lengths[partial] // PAGE_SIZE]
        return pages[self.pool.holders[pages] > 1]

    def _copies_needed(self, handle_ids: IntArray, lengths: IntArray) -> int:
        shared = self._last_pages(handle_ids, lengths)
        if not len(shared):
            return 0
        # Of the holders of a page the last one keeps it.
        pages, writers = np.unique(shared, return_counts=True)
        return int(np.minimum(writers, self.pool.holders[pages] - 1).sum())

    def _unshare(self, handle_ids: IntArray) -> list[PageCopy]:
        copies = []
        for handle_id in handle_ids.tolist():
            index, rest = divmod(int(self.lengths[handle_id]), PAGE_SIZE)
            table = self.tables[handle_id]
            if rest == 0 or self.pool.holders[table[index]] == 1:
                continue
            source = int(table[index])
            table[index] = self._take_one()
            self.pool.drop(np.array([source], np.int32))
            copies.append(PageCopy(source, int(table[index])))
        return copies
