"""What claims say."""

from typing import Any

import pytest

from producer.auth.oidc.claims import check_claims, identity_of, owner_of
from schemas.errors import ErrorCode, ServingError
from schemas.oidc_policy import OidcPolicy
from schemas.requests import PriorityClass

NOW = 1_800_000_000
ISSUER = "https://issuer.test"
GOOD: dict[str, Any] = {"iss": ISSUER, "aud": "llm", "sub": "alice", "exp": NOW + 60}


def policy(**changes: Any) -> OidcPolicy:
    return OidcPolicy.model_validate({"issuer": ISSUER, "audience": "llm", **changes})


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({}, None),
        ({"aud": ["x", "llm"]}, None),
        ({"aud": ["xllm"]}, ErrorCode.INVALID_TOKEN),
        ({"aud": "llm2"}, ErrorCode.INVALID_TOKEN),
        ({"aud": {"llm": 1}}, ErrorCode.INVALID_TOKEN),
        ({"exp": NOW - 29}, None),
        ({"exp": NOW - 29.5}, None),
        ({"exp": NOW - 30}, ErrorCode.EXPIRED_TOKEN),
        ({"exp": True}, ErrorCode.INVALID_TOKEN),
        ({"exp": "1"}, ErrorCode.INVALID_TOKEN),
        ({"exp": float("inf")}, ErrorCode.INVALID_TOKEN),
        ({"nbf": NOW + 30}, None),
        ({"nbf": NOW + 31}, ErrorCode.INVALID_TOKEN),
        ({"nbf": []}, ErrorCode.INVALID_TOKEN),
        ({"iss": f"{ISSUER}/"}, ErrorCode.INVALID_TOKEN),
        ({"iss": [ISSUER]}, ErrorCode.INVALID_TOKEN),
    ],
)
def test_whether_a_token_holds(claims: dict[str, Any], code: ErrorCode | None) -> None:
    try:
        check_claims({**GOOD, **claims}, policy(), NOW)
    except ServingError as error:
        assert error.code is code
    else:
        assert code is None


@pytest.mark.parametrize(
    ("changes", "claims", "scopes"),
    [
        ({}, {}, ()),
        ({}, {"scope": "read generate other"}, ("generate", "read")),
        ({}, {"scope": ["read"]}, ("read",)),
        ({}, {"scope": "admin read"}, ("read",)),
        ({"allow_admin": True}, {"scope": "admin read"}, ("read", "admin")),
        ({"scope_map": {"staff": ["read", "generate"]}}, {"scope": "staff"}, ("generate", "read")),
        ({"scope_map": {"staff": ["read"]}}, {"scope": "generate admin"}, ()),
        ({"scope_map": {"boss": ["admin"]}}, {"scope": "boss"}, ()),
        ({"scope_map": {"boss": ["admin"]}, "allow_admin": True}, {"scope": "boss"}, ("admin",)),
        ({"scopes_claim": "realm_access.roles"}, {"realm_access": {"roles": ["read"]}}, ("read",)),
        ({"scopes_claim": "https://x.test/roles"}, {"https://x.test/roles": ["read"]}, ("read",)),
        ({"scopes_claim": "a.b.c"}, {"a": {"b": "text"}}, ()),
    ],
)
def test_scopes(changes: dict[str, Any], claims: dict[str, Any], scopes: tuple[str, ...]) -> None:
    assert identity_of({**GOOD, **claims}, policy(**changes)).scopes == scopes


def test_tenant_models_and_ceiling() -> None:
    plain = identity_of(GOOD, policy())
    assert (plain.tenant, plain.grants.models, plain.grants.ceiling) == ("default", ("*",), PriorityClass.NORMAL)
    rules = policy(tenant_claim="org", models_claim="m", ceiling="low")
    rich = identity_of({**GOOD, "org": "acme", "m": "gpt-* llama"}, rules)
    assert (rich.tenant, rich.grants.models, rich.grants.ceiling) == ("acme", ("gpt-*", "llama"), PriorityClass.LOW)
    assert identity_of({**GOOD, "m": []}, rules).grants.models == ()
    admin = identity_of({**GOOD, "scope": "admin"}, policy(allow_admin=True))
    assert admin.grants.ceiling is PriorityClass.HIGH


def test_owners_are_one_for_each_subject_of_each_issuer() -> None:
    owners = {owner_of(issuer, subject) for issuer in ("https://a.test", "https://b.test") for subject in ("x", "y")}
    assert len(owners) == 4
    assert all(owner.startswith("oidc:") and len(owner) == 37 for owner in owners)
    assert identity_of(GOOD, policy()).owner == owner_of(ISSUER, "alice")
    assert identity_of({**GOOD, "email": "a@b"}, policy(subject_claim="email")).owner == owner_of(ISSUER, "a@b")


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "http://issuer.test"},
        {"issuer": "ftp://issuer.test"},
        {"issuer": "https://"},
        {"issuer": "https://issuer.test?x=1"},
        {"issuer": "https://issuer.test#x"},
        {"issuer": "https://user:pw@issuer.test"},
        {"issuer": "https://issuer.test:port"},
        {"issuer": "https://issuer .test"},
        {"audience": ""},
        {"algorithms": []},
        {"algorithms": ["none"]},
        {"algorithms": ["RS256", "HS256"]},
        {"algorithms": ["PS256"]},
        {"scope_map": {"a": ["root"]}},
        {"leeway_s": 301},
        {"ceiling": "highest"},
        {"surprise": 1},
    ],
)
def test_rules_that_are_not_taken(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        policy(**changes)


@pytest.mark.parametrize("issuer", ["http://localhost:8080/realms/a", "http://[::1]:1", "http://127.0.0.1", ISSUER])
def test_issuers_that_are_taken(issuer: str) -> None:
    assert policy(issuer=issuer).issuer == issuer
