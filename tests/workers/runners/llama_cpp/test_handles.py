"""Handles, sequences and cells, against plain models of them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workers.runners.llama_cpp.cells import CellLedger
from workers.runners.llama_cpp.handles import HandleTable


def live(table: HandleTable, handles: list) -> list[int]:
    return [table.sequence(handle) for handle in handles]


def test_low_sequences_are_given_out_first() -> None:
    table = HandleTable(4)
    handles = [table.create() for _ in range(4)]
    assert live(table, handles) == [0, 1, 2, 3]
    assert table.create() is None
    table.release(handles[2])
    table.release(handles[0])
    assert table.sequence(table.create()) == 0
    assert table.sequence(table.create()) == 2


def test_the_highest_sequence_moves_into_a_gap() -> None:
    table = HandleTable(8)
    handles = [table.create() for _ in range(8)]
    for number in (1, 5):
        table.release(handles[number])
    active = np.array([0, 2, 3, 6], np.int32)
    move = table.next_move(active)
    assert move == (6, 6, 1, None)
    table.move(move)
    assert table.next_move(active) is None
    assert table.sequence(handles[6]) == 1
    assert table.sequence(table.create()) == 5
    assert table.sequence(table.create()) == 6


def test_a_gap_that_is_taken_closes_once_its_sequence_has_been_idle() -> None:
    table = HandleTable(5)
    handles = [table.create() for _ in range(5)]
    table.lengths[:] = [1, 9, 5, 1, 1]
    active = np.array([0, 3], np.int32)
    moves = [table.next_move(active) for _ in range(10)]
    assert moves[:8] == [None] * 8
    # The shorter of the two between them makes room.
    assert moves[9] == (3, 3, 2, 2)
    table.move(moves[9])
    assert live(table, handles) == [0, 1, 3, 2, 4]
    table.move(table.next_move(active))
    assert live(table, handles) == [0, 2, 3, 1, 4]
    assert table.next_move(active) is None
    table.release(handles[2])
    assert table.sequence(table.create()) == 3


@given(st.lists(st.tuples(st.sampled_from(["create", "release", "move", "some"]), st.integers(0, 5)), max_size=80))
def test_no_two_handles_share_a_sequence(actions: list[tuple[str, int]]) -> None:
    table = HandleTable(6)
    handles: list = []
    for action, number in actions:
        if action == "create":
            handle = table.create()
            assert (handle is None) == (len(handles) == 6)
            handles += [handle] if handle else []
        elif action == "release" and handles:
            handle = handles.pop(number % len(handles))
            assert table.release(handle) is not None
            assert table.release(handle) is None
        elif handles:
            active = handles if action == "move" else handles[:: 1 + number]
            ids = np.array([handle.id for handle in active], np.int32)
            move = table.next_move(ids)
            if move is not None:
                table.move(move)
        sequences = live(table, handles)
        assert len(set(sequences)) == len(sequences)
        assert len({handle.id for handle in handles}) == len(handles)


@given(st.lists(st.tuples(st.sampled_from(["append", "fork", "cut"]), st.integers(0, 4), st.integers(0, 12))))
def test_the_ledger_counts_each_shared_cell_once(actions: list[tuple[str, int, int]]) -> None:
    """The model: every handle is a list of cells, numbered as they are made."""
    ledger = CellLedger(5, 64, 40)
    handles: list[list[int]] = [[] for _ in range(5)]
    made = 0
    for action, number, amount in actions:
        cells = handles[number]
        if action == "append":
            amount = min(amount, ledger.num_free, 64 - len(cells))
            positions = np.arange(len(cells), len(cells) + amount, dtype=np.int32)
            ledger.append(np.full(amount, number, np.int32), positions)
            cells += range(made, made + amount)
            made += amount
        elif action == "fork":
            target = (number + 1) % 5
            ledger.drop(target, 0, len(handles[target]))
            amount = min(amount, len(cells))
            ledger.share(number, target, amount)
            handles[target] = cells[:amount]
        else:
            keep = min(amount, len(cells))
            ledger.drop(number, keep, len(cells))
            del cells[keep:]
        assert ledger.num_free == 40 - len({cell for held in handles for cell in held})
