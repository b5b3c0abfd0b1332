"""Keys: who they belong to, how they are presented, what their owners are called."""

import pytest

from producer.auth.api_keys import ApiKeys, presented_key
from producer.config import EdgeConfig, KeySpec, Scope
from producer.policy.effective import lay_over
from schemas.errors import ErrorCode, ServingError
from schemas.requests import PriorityClass

PEPPER = b"pepper"


def api_keys(*specs: KeySpec, pepper: bytes = PEPPER) -> ApiKeys:
    keys = ApiKeys(pepper)
    keys.learn(lay_over(EdgeConfig("e1", pepper, specs), None))
    return keys


def test_a_known_key_gives_its_identity() -> None:
    keys = api_keys(KeySpec("secret", name="alice", scopes=(Scope.READ,), tenant="t", models=("a*",)))
    identity = keys.identify("secret")
    assert identity is not None
    assert (identity.owner, identity.tenant, identity.scopes) == ("alice", "t", ("read",))
    assert identity.grants.models == ("a*",)


@pytest.mark.parametrize("secret", ["", "secret ", "Secret", "secre", "secrets", "\x00", "geheim", "\ud800"])
def test_other_keys_are_nobody(secret: str) -> None:
    assert api_keys(KeySpec("secret")).identify(secret) is None


def test_a_key_without_a_name_is_called_by_its_hash() -> None:
    names = {
        identity.owner
        for pepper in (b"one", b"two")
        if (identity := api_keys(KeySpec("secret"), pepper=pepper).identify("secret")) is not None
    }
    assert len(names) == 2
    assert all(name.startswith("k_") and len(name) == 10 and int(name[2:], 16) >= 0 for name in names)


def test_default_scopes_and_ceilings() -> None:
    keys = api_keys(
        KeySpec("plain"),
        KeySpec("admin", scopes=(Scope.ADMIN,)),
        KeySpec("low", scopes=(Scope.ADMIN,), ceiling=PriorityClass.LOW),
    )
    ceilings = []
    for secret in ("plain", "admin", "low"):
        identity = keys.identify(secret)
        assert identity is not None
        ceilings.append(identity.grants.ceiling)
    assert ceilings == [PriorityClass.NORMAL, PriorityClass.HIGH, PriorityClass.LOW]
    plain = keys.identify("plain")
    assert plain is not None and set(plain.scopes) == {"generate", "read"}


def test_secrets_are_not_shown() -> None:
    assert "hush" not in repr(KeySpec("hush"))
    assert "hush" not in repr(vars(api_keys(KeySpec("hush"))))


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "api_key"),
    [
        ("Bearer k", None, None),
        ("bearer k", None, None),
        ("BEARER   k ", None, None),
        (None, "k", None),
        (None, None, "k"),
        (None, "", "k"),
        ("Bearer k", "other", None),
    ],
)
def test_a_key_is_found_in_any_of_its_headers(
    authorization: str | None, x_api_key: str | None, api_key: str | None
) -> None:
    assert presented_key(authorization, x_api_key, api_key) == "k"


@pytest.mark.parametrize("authorization", [None, "", "Basic k", "Bearer", "Bearer ", "k"])
def test_a_missing_key_is_401(authorization: str | None) -> None:
    with pytest.raises(ServingError) as refused:
        presented_key(authorization, None, None)
    assert refused.value.code is ErrorCode.INVALID_API_KEY
    assert refused.value.status == 401
