"""The count of shared KV, against lists of numbered pages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.kv.spans import Span, SpanLedger


def test_a_shared_beginning_counts_once_for_as_long_as_somebody_holds_it() -> None:
    ledger = SpanLedger(is_sharing=True)
    first = ledger.reserve(460)
    second = ledger.fork(first, 400, 430)
    third = ledger.fork(second, 410, 450)
    assert ledger.total == 460 + 30 + 40
    ledger.release(first)
    assert ledger.total == 430 + 40
    ledger.release(second)
    assert ledger.total == 450
    ledger.release(third)
    assert ledger.total == 0


def test_what_is_copied_counts_each_time() -> None:
    ledger = SpanLedger(is_sharing=False)
    ledger.fork(ledger.reserve(100), 90, 120)
    assert ledger.total == 220


def test_a_page_that_is_not_full_is_not_shared() -> None:
    ledger = SpanLedger(is_sharing=True, page_size=16)
    origin = ledger.reserve(70)
    assert ledger.total == 80
    ledger.fork(origin, 40, 50)
    assert ledger.total == 80 + (64 - 32)
    assert (ledger.num_shared(40), ledger.size(50)) == (32, 64)


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["new", "fork", "resize", "release"]), st.integers(0, 9), st.integers(0, 60)), max_size=50
)


@pytest.mark.parametrize("page_size", [1, 8])
@given(actions=ACTIONS)
def test_the_total_is_the_number_of_different_pages(page_size: int, actions: list[tuple[str, int, int]]) -> None:
    """The model: a holder is a list of pages; a fork has the full ones of its beginning in common."""
    ledger = SpanLedger(is_sharing=True, page_size=page_size)
    holders: list[tuple[Span, list[int]]] = []
    made = 0

    def grown(pages: list[int], num_tokens: int) -> list[int]:
        nonlocal made
        count = -(-num_tokens // page_size) - len(pages)
        made += max(0, count)
        return pages[: len(pages) + min(count, 0)] + list(range(made - max(0, count), made))

    for action, which, amount in actions:
        if action == "new" or not holders:
            holders.append((ledger.reserve(amount), grown([], amount)))
            continue
        span, pages = holders.pop(which % len(holders))
        match action:
            case "fork":
                count = min(amount, span.end)
                full = count // page_size
                fork = ledger.fork(span, count, count + which)
                holders += [(span, pages), (fork, grown(pages[:full], count + which))]
            case "resize":
                # A cut page is written to again, and so is the last one when it grows: then it is its own.
                full = min(amount, span.end) // page_size
                is_alone = not any(set(pages[full:]) & set(other) for _, other in holders)
                kept = pages if is_alone and amount >= span.end else pages[:full]
                holders.append((ledger.resize(span, amount), grown(kept, amount)))
            case "release":
                ledger.release(span)
        assert ledger.total == len({page for _, pages in holders for page in pages}) * page_size
        assert ledger.total == ledger.size_of((span, 10_000) for span, _ in holders)
