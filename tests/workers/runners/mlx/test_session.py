"""Many handles in one pass, and what a pass leaves behind."""

import numpy as np
import pytest

from tests.support.models import why_no_mlx

pytest.importorskip("mlx.core", reason="mlx is not installed; run: make setup PARTS=mlx")

from tests.workers.runners.mlx.feeding import Piece, batch, feed, new_handle, tokens
from tests.workers.runners.mlx.small_models import LLAMA, RandomTensors, small_session
from workers.runners.base import Batch, FloatArray, ForwardStatus, Handle
from workers.runners.mlx.exported import from_bytes, to_bytes
from workers.runners.mlx.sequence_kv import PAGE
from workers.runners.mlx.session import Session

pytestmark = [pytest.mark.mlx, pytest.mark.skipif(bool(why_no_mlx()), reason=why_no_mlx() or "")]

TENSORS = RandomTensors(LLAMA)


@pytest.fixture
def session() -> Session:
    return small_session(TENSORS)


def alone(prompt: list[int]) -> FloatArray:
    """Logits after every token, in a session of its own."""
    session = small_session(TENSORS)
    return feed(session, Piece(new_handle(session), prompt))[0]


def held(session: Session, prompt: list[int]) -> Handle:
    """A handle that has the prompt."""
    handle = new_handle(session)
    feed(session, Piece(handle, prompt))
    return handle


def near(here: FloatArray, there: FloatArray) -> None:
    np.testing.assert_allclose(here, there, atol=2e-3)


def test_a_ragged_batch_equals_each_alone(session: Session) -> None:
    # Long and short beginnings, chunks and single tokens; across the end of an array's room, too.
    lengths = [(0, 40), (PAGE - 1, 1), (3, 1), (PAGE - 10, 30), (0, 33), (90, 1)]
    prompts = [tokens(start + count, seed) for seed, (start, count) in enumerate(lengths)]
    handles = [new_handle(session) for _ in prompts]
    for handle, prompt, (start, _) in zip(handles, prompts, lengths, strict=True):
        if start:
            feed(session, Piece(handle, prompt[:start]))
    pieces = [
        Piece(handle, prompt[start:]) for handle, prompt, (start, _) in zip(handles, prompts, lengths, strict=True)
    ]
    for rows, prompt, (start, count) in zip(feed(session, *pieces), prompts, lengths, strict=True):
        near(rows, alone(prompt)[start:])
        assert len(rows) == count
    assert [session.table.get(handle).length for handle in handles] == [sum(pair) for pair in lengths]


def test_the_wanted_rows_come_in_their_order(session: Session) -> None:
    prompts = [tokens(count, seed) for seed, count in enumerate((3, 20, 1))]
    whole = batch(session, *(Piece(new_handle(session), prompt) for prompt in prompts))
    wanted = np.array([1, 5, 22, 23], np.int32)
    result = session.forward(Batch(whole.tokens, whole.handle_ids, whole.positions, wanted))
    assert result.logits is not None
    near(result.logits, np.concatenate([alone(prompt) for prompt in prompts])[wanted])


def test_no_space_is_known_to_the_token_and_changes_nothing() -> None:
    session = small_session(TENSORS, token_budget=100)
    first, second = held(session, tokens(60, seed=1)), new_handle(session)
    fits = batch(session, Piece(first, [1, 2]), Piece(second, tokens(38, seed=2)))
    exceeds = batch(session, Piece(first, [1, 2]), Piece(second, tokens(39, seed=2)))
    assert session.fits(fits.positions) and not session.fits(exceeds.positions)
    assert session.forward(exceeds).status is ForwardStatus.NO_SPACE
    assert (session.table.get(first).length, session.table.get(second).length) == (60, 0)
    assert session.forward(fits).status is ForwardStatus.OK
    session.table.release(first)
    assert session.fits(batch(session, Piece(new_handle(session), tokens(62, seed=3))).positions)


def test_a_handle_ends_at_the_context() -> None:
    session = small_session(TENSORS, context=50)
    handle = held(session, tokens(49, seed=1))
    assert session.forward(batch(session, Piece(handle, [1, 2]))).status is ForwardStatus.NO_SPACE
    assert session.forward(batch(session, Piece(handle, [1]))).status is ForwardStatus.OK


@pytest.mark.parametrize("looks", range(1, 5))
def test_an_aborted_pass_changes_nothing(looks: int) -> None:
    remaining = 10**6

    def is_aborted() -> bool:
        nonlocal remaining
        remaining -= 1
        return remaining < 0

    session = small_session(TENSORS, is_aborted=is_aborted)
    prompt, other = tokens(PAGE + 20, seed=1), tokens(30, seed=2)
    first, second = held(session, prompt[:PAGE]), new_handle(session)
    again = batch(session, Piece(first, prompt[PAGE:]), Piece(second, other))
    remaining = looks - 1
    assert session.forward(again).status is ForwardStatus.ABORTED
    assert (session.table.get(first).length, session.table.get(second).length) == (PAGE, 0)
    assert session.table.get(second).arrays(0)[0].shape[2] == 0
    remaining = 10**6
    rows, other_rows = feed(session, Piece(first, prompt[PAGE:]), Piece(second, other))
    near(rows, alone(prompt)[PAGE:])
    near(other_rows, alone(other))


def test_what_is_cut_off_gives_its_room_back(session: Session) -> None:
    prompt = tokens(2 * PAGE + 5, seed=1)
    sequence = session.table.get(held(session, prompt))
    assert sequence.arrays(0)[0].shape[2] == 3 * PAGE
    sequence.truncate(PAGE)
    assert all(array.shape[2] == PAGE for layer in range(LLAMA.num_layers) for array in sequence.arrays(layer))
    sequence.truncate(0)
    assert sequence.arrays(0)[0].shape[2] == 0


@pytest.mark.parametrize("num_tokens", [0, 1, PAGE - 1, PAGE, PAGE + 1])
def test_a_copy_goes_its_own_way(session: Session, num_tokens: int) -> None:
    prompt, other = tokens(PAGE + 40, seed=1), tokens(20, seed=2)
    origin = held(session, prompt[: PAGE + 20])
    fork = session.table.create(session.table.get(origin).copy(num_tokens))
    assert fork is not None
    near(feed(session, Piece(fork, other))[0], alone(prompt[:num_tokens] + other)[num_tokens:])
    near(feed(session, Piece(origin, prompt[PAGE + 20 :]))[0], alone(prompt)[PAGE + 20 :])


@pytest.mark.parametrize("num_tokens", [0, 1, PAGE + 7])
def test_exported_bytes_hold_a_handle(session: Session, num_tokens: int) -> None:
    prompt = tokens(num_tokens, seed=1)
    sequence = session.table.get(held(session, prompt) if prompt else new_handle(session))
    data = to_bytes(sequence, session.layout)
    copy = from_bytes(data, num_tokens, session.layout)
    assert copy is not None and to_bytes(copy, session.layout) == data
    handle = session.table.create(copy)
    assert handle is not None
    near(feed(session, Piece(handle, [5, 6]))[0], alone([*prompt, 5, 6])[num_tokens:])


def test_bytes_of_another_kind_are_not_taken(session: Session) -> None:
    data = to_bytes(session.table.get(held(session, tokens(9, seed=1))), session.layout)
    other = small_session(TENSORS, kv_type="f16")
    assert from_bytes(data, 9, session.layout) is not None
    assert from_bytes(data, 8, session.layout) is None
    assert from_bytes(data[:-1], 9, session.layout) is None
    assert from_bytes(b"x" + data[1:], 9, session.layout) is None
    assert from_bytes(data, 9, other.layout) is None
    assert from_bytes(b"", 9, session.layout) is None


def test_a_batch_that_breaks_a_rule_is_refused(session: Session) -> None:
    handle = held(session, [1, 2, 3])
    good = batch(session, Piece(handle, [4, 5]))

    def refused(reason: str, **changes: list[int]) -> None:
        arrays = {name: np.array(changes.get(name, getattr(good, name)), np.int32) for name in Batch.__slots__}
        with pytest.raises(ValueError, match=reason):
            session.forward(Batch(**arrays))

    refused("start at its length", positions=[2, 3])
    refused("start at its length", positions=[3, 5])
    refused("not in use", handle_ids=[5, 5])
    refused("not in use", handle_ids=[-1, -1])
    refused("not in use", handle_ids=[99, 99])
    refused("outside 0 to 100", tokens=[4, 101])
    refused("outside 0 to 100", tokens=[-1, 4])
    refused("not ascending", logit_rows=[1, 0])
    refused("not ascending", logit_rows=[2])
    refused("differ in length", positions=[3])
    refused("from 1 to 1024 rows, not 0", tokens=[], handle_ids=[], positions=[], logit_rows=[])
    other = new_handle(session)
    refused("not contiguous", tokens=[1, 2, 3], handle_ids=[0, other.id, 0], positions=[3, 0, 4], logit_rows=[])
    assert session.forward(good).status is ForwardStatus.OK
