"""Which published keys count."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, RSAKey

from producer.auth.oidc.key_set import KeySet
from tests.producer.test_parameters import ANY_JSON
from tests.support.oidc import Keys

RSA = RSAKey.generate_key(2048, {"kid": "a"}).as_dict(private=False)
P384 = ECKey.generate_key("P-384", {"kid": "a"}).as_dict(private=False)


def test_a_key_is_found_by_its_id_and_for_its_algorithm_alone() -> None:
    keys = KeySet(Keys().jwks(private=False))
    assert len(keys) == 3
    assert keys.find("RS256-1", "RS256") is not None
    for kid, algorithm in (("RS256-1", "RS512"), ("RS256-1", "ES256"), ("ES256-1", "RS256"), ("nope", "RS256")):
        assert keys.find(kid, algorithm) is None
    both = KeySet({"keys": [RSA, P384]})
    assert (both.find("a", "RS512") is not None, both.find("a", "ES384") is not None) == (True, True)


@pytest.mark.parametrize(
    "entry",
    [
        OctKey.generate_key(256, {"kid": "a"}).as_dict(private=True),
        {**RSA, "use": "enc"},
        {**RSA, "key_ops": ["encrypt"]},
        {name: value for name, value in RSA.items() if name != "kid"},
        {**RSA, "kid": 7},
        {**RSA, "n": "AQAB"},
        {**RSA, "n": "!"},
        {**RSA, "n": 5},
        {**RSA, "kty": "EC"},
        {**P384, "crv": "P-999"},
        {**P384, "y": P384["x"]},
        {"kid": "a"},
        "text",
        None,
    ],
)
def test_what_cannot_verify_a_signature_is_left_out(entry: Any) -> None:
    assert len(KeySet({"keys": [entry, {**RSA, "kid": "good"}]})) == 1


def test_a_private_part_that_slipped_in_is_not_kept() -> None:
    key = KeySet(Keys().jwks(private=True)).find("RS256-1", "RS256")
    assert key is not None and not key.is_private


@given(st.dictionaries(st.just("keys") | st.text(max_size=3), ANY_JSON, max_size=3))
def test_any_document_is_read(document: dict[str, Any]) -> None:
    assert len(KeySet(document)) == 0


@given(st.dictionaries(st.sampled_from(["kty", "kid", "use", "alg", "crv", "x", "y", "n", "e", "key_ops"]), ANY_JSON))
def test_any_entry_is_read(changes: dict[str, Any]) -> None:
    for entry in (RSA, P384):
        KeySet({"keys": [{**entry, **changes}]}).find("a", "RS256")
