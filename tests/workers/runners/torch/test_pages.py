"""Pages: who holds them, where they lie, and what is in them."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from workers.runners.base import Handle
from workers.runners.torch.page_tables import PageTables
from workers.runners.torch.pages import PAGE_SIZE, PagePool, num_pages


def ids(*handles: Handle) -> np.ndarray:
    return np.array([handle.id for handle in handles], np.int32)


def counts(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def append(tables: PageTables, handle: Handle, count: int) -> None:
    assert tables.pages_needed(ids(handle), counts(count)) <= tables.pool.num_free
    assert not tables.grow(ids(handle), counts(count))
    tables.advance(ids(handle), counts(count))


def created(tables: PageTables) -> Handle:
    handle = tables.create()
    assert handle is not None
    return handle


def is_one_run(pages: np.ndarray) -> bool:
    return bool((np.diff(pages) == 1).all())


def test_sequences_that_grow_side_by_side_stay_in_one_run_each() -> None:
    tables = PageTables(PagePool(4 * 64), 8, 64 * PAGE_SIZE)
    handles = [created(tables) for _ in range(4)]
    for _ in range(64 * PAGE_SIZE // 8):
        for handle in handles:
            append(tables, handle, 8)
    assert all(is_one_run(tables.pages(handle)) for handle in handles)
    assert tables.pool.num_free == 0


def test_a_prompt_gets_one_run_where_there_is_one() -> None:
    tables = PageTables(PagePool(64), 8, 64 * PAGE_SIZE)
    first, second, third = (created(tables) for _ in range(3))
    append(tables, first, 10 * PAGE_SIZE)
    append(tables, second, 20 * PAGE_SIZE)
    tables.release(first)
    append(tables, third, 22 * PAGE_SIZE)
    assert is_one_run(tables.pages(third))


def test_the_last_pages_are_given_out_in_pieces() -> None:
    pool = PagePool(6)
    assert pool.take(6) == [0, 1, 2, 3, 4, 5]
    pool.drop(np.array([0, 2, 3, 5], np.int32))
    assert pool.take(5) is None
    assert pool.num_free == 4
    assert sorted(pool.take(4) or []) == [0, 2, 3, 5]


def test_a_page_held_twice_or_lost_is_found() -> None:
    tables = PageTables(PagePool(8), 4, 4 * PAGE_SIZE)
    one, other = created(tables), created(tables)
    append(tables, one, 20)
    append(tables, other, 20)
    assert tables.books().fault == ""
    mine = tables.tables[other.id].copy()
    tables.tables[other.id, :2] = tables.tables[one.id, :2]
    assert "other holders" in tables.books().fault
    tables.tables[other.id] = mine
    assert tables.books().fault == ""
    tables.pool.num_free += 1
    assert "pages are free" in tables.books().fault


def test_a_fork_copies_no_more_than_a_partly_filled_page() -> None:
    tables = PageTables(PagePool(16), 4, 8 * PAGE_SIZE)
    origin = created(tables)
    append(tables, origin, 5 * PAGE_SIZE)
    whole = tables.fork(origin, 3 * PAGE_SIZE)
    assert whole is not None and whole[1] is None
    assert tables.pool.num_free == 11
    partly = tables.fork(origin, 3 * PAGE_SIZE + 1)
    assert partly is not None and partly[1] is not None
    assert partly[1].source == tables.pages(origin)[3]
    assert tables.pool.num_free == 10
    assert tables.books().fault == ""


def test_a_fork_without_a_page_for_its_rest_is_refused_and_costs_nothing() -> None:
    tables = PageTables(PagePool(2), 4, 8 * PAGE_SIZE)
    origin = created(tables)
    append(tables, origin, 2 * PAGE_SIZE)
    assert tables.fork(origin, PAGE_SIZE + 1) is None
    assert tables.fork(origin, PAGE_SIZE) is not None
    assert tables.books().fault == ""


class Books(RuleBasedStateMachine):
    """Handles that write, fork, are cut and given back, on few pages. What each should hold is kept beside."""

    handles = Bundle("handles")

    @initialize()
    def start(self) -> None:
        self.tables = PageTables(PagePool(12), 6, 6 * PAGE_SIZE)
        self.memory = np.zeros((12, PAGE_SIZE), np.int64)
        self.texts: dict[Handle, list[int]] = {}
        self.written = 0

    @rule(target=handles)
    def create(self) -> object:
        handle = self.tables.create()
        if handle is None:
            assert len(self.texts) == 6
            return None
        self.texts[handle] = []
        return handle

    @rule(chosen=st.lists(handles, min_size=1, max_size=4, unique=True), sizes=st.lists(st.integers(1, 40), min_size=4))
    def write(self, chosen: list[Handle | None], sizes: list[int]) -> None:
        """In one batch; all or nothing."""
        live = [handle for handle in chosen if handle in self.texts]
        growth = [(h, min(n, 6 * PAGE_SIZE - len(self.texts[h]))) for h, n in zip(live, sizes, strict=False)]
        growth = [(handle, count) for handle, count in growth if count > 0]
        if not growth:
            return
        rows, sizes_ = ids(*(handle for handle, _ in growth)), counts(*(count for _, count in growth))
        needed, free = self.tables.pages_needed(rows, sizes_), self.tables.pool.num_free
        if needed > free:
            return
        for source, target in self.tables.grow(rows, sizes_):
            self.memory[target] = self.memory[source]
        assert self.tables.pool.num_free == free - needed
        for handle, count in growth:
            for position in range(len(self.texts[handle]), len(self.texts[handle]) + count):
                self.written += 1
                page = self.tables.tables[handle.id, position // PAGE_SIZE]
                assert self.tables.pool.holders[page] == 1
                self.memory[page, position % PAGE_SIZE] = self.written
                self.texts[handle].append(self.written)
        self.tables.advance(rows, sizes_)

    @rule(handle=handles, count=st.integers(1, 40))
    def grow_and_think_better_of_it(self, handle: Handle | None, count: int) -> None:
        if handle not in self.texts:
            return
        assert handle is not None
        count = min(count, 6 * PAGE_SIZE - len(self.texts[handle]))
        if count <= 0 or self.tables.pages_needed(ids(handle), counts(count)) > self.tables.pool.num_free:
            return
        for source, target in self.tables.grow(ids(handle), counts(count)):
            self.memory[target] = self.memory[source]
        self.tables.shrink(ids(handle), counts(count))

    @rule(target=handles, handle=handles, share=st.floats(0, 1))
    def fork(self, handle: Handle | None, share: float) -> object:
        if handle not in self.texts:
            return None
        assert handle is not None
        length = round(share * len(self.texts[handle]))
        forked = self.tables.fork(handle, length)
        if forked is None:
            assert len(self.texts) == 6 or self.tables.pool.num_free == 0
            return None
        fork, copy = forked
        if copy is not None:
            self.memory[copy.target] = self.memory[copy.source]
        self.texts[fork] = self.texts[handle][:length]
        return fork

    @rule(handle=handles, share=st.floats(0, 1))
    def truncate(self, handle: Handle | None, share: float) -> None:
        if handle not in self.texts:
            return
        assert handle is not None
        length = round(share * len(self.texts[handle]))
        self.tables.truncate(handle, length)
        del self.texts[handle][length:]

    @rule(handle=consumes(handles))
    @precondition(lambda self: bool(self.texts))
    def release(self, handle: Handle | None) -> None:
        if handle is not None:
            self.tables.release(handle)
            self.texts.pop(handle, None)

    @invariant()
    def everyone_reads_what_it_wrote(self) -> None:
        if not hasattr(self, "tables"):
            return
        assert self.tables.books().fault == ""
        for handle, text in self.texts.items():
            pages = self.tables.pages(handle)
            assert len(pages) == num_pages(len(text))
            assert self.memory[pages].reshape(-1)[: len(text)].tolist() == text


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
