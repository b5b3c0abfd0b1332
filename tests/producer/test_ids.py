"""Ids: minted, derived, sanitised."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.subjects import is_valid_id
from producer.edge.ids import (
    check_idempotency_key,
    derive_request_id,
    hash_label,
    is_own,
    mint_request_id,
    mint_seed,
    part_id,
    sanitise_client_id,
)
from schemas.errors import ServingError


def test_minted_ids_are_fit_for_subjects_and_differ() -> None:
    ids = {mint_request_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(is_valid_id(each) for each in ids)
    assert all(0 <= mint_seed() < 2**63 for _ in range(100))


@given(st.text(), st.text())
def test_derived_ids_are_the_same_everywhere_and_valid(owner: str, key: str) -> None:
    assert derive_request_id(owner, key, 0) == derive_request_id(owner, key, 0)
    assert is_valid_id(derive_request_id(owner, key, 0))
    others = [(owner + "x", key, 0), (owner, key + "x", 0), (owner, key, 1)]
    assert len({derive_request_id(owner, key, 0), *(derive_request_id(*other) for other in others)}) == 4


@given(st.text(), st.text(), st.text())
def test_an_id_tells_its_owner_that_it_is_theirs_and_nobody_else(owner: str, key: str, stranger: str) -> None:
    for request_id in (mint_request_id(owner), derive_request_id(owner, key, 3)):
        assert is_own(request_id, owner)
        assert is_own(request_id, stranger) is (owner == stranger)
        assert not is_own(part_id(request_id, 1), owner)
    assert not is_own(key, owner)


def test_the_first_part_has_the_id_of_its_call() -> None:
    assert [part_id("a", index) for index in range(3)] == ["a", "a-1", "a-2"]


@given(st.text())
def test_a_clients_id_comes_out_harmless(text: str) -> None:
    clean = sanitise_client_id(text)
    assert clean is None or (0 < len(clean) <= 128 and clean.isascii() and clean.isprintable() and " " not in clean)


def test_a_clients_id_survives_when_it_is_plain() -> None:
    assert sanitise_client_id("req_1.a:b-c") == "req_1.a:b-c"
    assert sanitise_client_id("a\r\nb") == "ab"
    assert sanitise_client_id("") is None
    assert sanitise_client_id("ü") is None


@pytest.mark.parametrize("key", ["", "  ", "ü", "a" * 256, "a\nb"])
def test_a_bad_idempotency_key_is_refused(key: str) -> None:
    with pytest.raises(ServingError) as refused:
        check_idempotency_key(key)
    assert (refused.value.status, refused.value.param) == (400, "Idempotency-Key")


def test_a_good_idempotency_key_passes() -> None:
    assert check_idempotency_key(" key 1 ") == "key 1"
    assert check_idempotency_key(None) is None


def test_labels_are_hashed() -> None:
    assert hash_label("alice") == hash_label("alice") != hash_label("bob")
    assert "alice" not in hash_label("alice")
