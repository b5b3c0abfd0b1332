"""Which pages of KV memory are taken, and by how many page tables."""

from collections.abc import Iterable

import numpy as np

from workers.runners.base import IntArray

PAGE_SIZE = 16


def num_pages(num_tokens: int) -> int:
    """Pages that hold so many tokens."""
    return -(-num_tokens // PAGE_SIZE)


class PagePool:
    """Hands out page numbers. A page is free when no table holds it.

    Pages of a table are read fastest where they follow each other (one and a half to two times as fast as scattered
    ones), so a table grows into the page behind its last one when that is free, and a new run starts in the middle of
    the largest gap: that leaves the table before it room to grow, and halves the gaps as tables come.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.holders: IntArray = np.zeros(size, np.int32)
        self.num_free = size

    def take(self, count: int, after: int = -1) -> list[int] | None:
        """Pages with one holder each, in runs as long as there are; None, and nothing taken, when so many are not free.

        `after` is the page that they continue, -1 for none.
        """
        if count > self.num_free:
            return None
        pages: list[int] = []
        while len(pages) < count:
            missing = count - len(pages)
            start, end = self._run_after(after, missing) if after >= 0 else (0, 0)
            if start == end:
                start, end = self._run_in_largest_gap(missing)
            pages.extend(range(start, end))
            self.holders[start:end] = 1
            self.num_free -= end - start
            after = end - 1
        return pages

    def share(self, pages: IntArray) -> None:
        """One holder more for each of these different pages."""
        self.holders[pages] += 1

    def drop(self, pages: IntArray) -> None:
        """One holder less for each of these different pages."""
        self.holders[pages] -= 1
        self.num_free += int((self.holders[pages] == 0).sum())

    def fault(self, tables: Iterable[IntArray]) -> str:
        """What is wrong; empty when each page is held as often as these tables say, and free when in none."""
        expected = np.zeros(self.size, np.int32)
        for table in tables:
            if len(set(table.tolist())) != len(table):
                return "a page table holds a page twice"
            expected[table] += 1
        wrong = np.flatnonzero(expected != self.holders)
        if len(wrong):
            return f"pages {wrong[:8].tolist()} have other holders than the page tables say"
        num_free = int((expected == 0).sum())
        return "" if self.num_free == num_free else f"{num_free} pages are free, and the pool says {self.num_free}"

    def _run_after(self, page: int, most: int) -> tuple[int, int]:
        start = end = page + 1
        last = min(start + most, self.size)
        while end < last and self.holders[end] == 0:
            end += 1
        return start, end

    def _run_in_largest_gap(self, most: int) -> tuple[int, int]:
        is_free = np.concatenate(([0], self.holders == 0, [0]))
        edges = np.flatnonzero(np.diff(is_free))
        starts, ends = edges[::2], edges[1::2]
        largest = int((ends - starts).argmax())
        start, end = int(starts[largest]), int(ends[largest])
        if start > 0:
            start = max(start, min((start + end) // 2, end - most))
        return start, min(start + most, end)
