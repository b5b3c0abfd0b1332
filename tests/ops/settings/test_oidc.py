"""The section auth.oidc."""

from pathlib import Path

import pytest

from ops.serving.edge import edge_config
from ops.serving.keys import effective_keys
from ops.settings.errors import SettingsError
from ops.settings.loader import load

BOTH = {"INFERFLUX_OIDC_ISSUER": "https://login.example/realms/a", "INFERFLUX_OIDC_AUDIENCE": "llm"}


def test_two_variables_are_enough(tmp_path: Path) -> None:
    settings = load({**BOTH, "INFERFLUX_DATA_DIR": str(tmp_path)}, {"--host": "0.0.0.0"})
    policy = edge_config(settings, "e1").oidc
    assert policy is not None
    assert (policy.issuer, policy.audience) == ("https://login.example/realms/a", "llm")
    assert (policy.algorithms, policy.allow_admin) == (("RS256", "ES256", "EdDSA"), False)
    assert load({}, {}).auth.oidc is None


def test_the_well_known_key_is_not_taken_beside_tokens() -> None:
    for host in ("localhost", "0.0.0.0"):
        settings = load(BOTH, {"--host": host})
        assert effective_keys(settings) == ()


def test_all_of_it_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "server.yaml"
    path.write_text(
        """
auth:
  oidc:
    issuer: http://localhost:9000
    audience: https://llm.example
    algorithms: [ES256, RS512]
    token_types: [at+jwt]
    subject_claim: oid
    tenant_claim: org
    scopes_claim: realm_access.roles
    models_claim: llm_models
    scope_map: {llm-users: [generate, read], llm-admins: admin}
    allow_admin: true
    ceiling: high
    leeway_s: 5
    client_id: inferctl
    login_scopes: [openid]
    resource: https://llm.example
"""
    )
    policy = load({}, {"--config": str(path)}).auth.oidc
    assert policy is not None
    assert policy.model_dump(mode="json") == {
        "issuer": "http://localhost:9000",
        "audience": "https://llm.example",
        "algorithms": ["ES256", "RS512"],
        "token_types": ["at+jwt"],
        "subject_claim": "oid",
        "tenant_claim": "org",
        "scopes_claim": "realm_access.roles",
        "models_claim": "llm_models",
        "scope_map": {"llm-users": ["generate", "read"], "llm-admins": ["admin"]},
        "allow_admin": True,
        "ceiling": "high",
        "leeway_s": 5,
        "client_id": "inferctl",
        "login_scopes": ["openid"],
        "resource": "https://llm.example",
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"OIDC_AUDIENCE": ""}, r"auth.oidc.issuer \(variable INFERFLUX_OIDC_ISSUER\): auth.oidc.audience must be set"),
        ({"OIDC_ISSUER": ""}, r"auth.oidc.audience .* auth.oidc.issuer must be set"),
        ({"OIDC_ISSUER": "", "OIDC_AUDIENCE": "", "AUTH__OIDC__CLIENT_ID": "x"}, r"auth.oidc.client_id .*issuer must"),
        ({"OIDC_ISSUER": "http://login.example"}, r"auth.oidc.issuer .*https://"),
        ({"OIDC_ISSUER": "login.example"}, r"auth.oidc.issuer"),
        ({"AUTH__OIDC__ALGORITHMS": "RS256,HS256"}, r"auth.oidc.algorithms .*RS256"),
        ({"AUTH__OIDC__ALGORITHMS": "none"}, r"auth.oidc.algorithms"),
        ({"AUTH__OIDC__ALGORITHMS": ""}, r"auth.oidc.algorithms"),
        ({"AUTH__OIDC__LEEWAY_S": "301"}, r"auth.oidc.leeway_s .*to 300"),
        ({"AUTH__OIDC__SCOPE_MAP": '{"a": ["root"]}'}, r"auth.oidc.scope_map .*'a' must open"),
        ({"AUTH__OIDC__SCOPE_MAP": "[]"}, r"auth.oidc.scope_map"),
        ({"AUTH__OIDC__RESOURCE": "llm.example"}, r"auth.oidc.resource"),
        ({"OIDC_AUDIENCE": "x" * 300}, r"auth.oidc.audience"),
    ],
)
def test_what_is_refused_and_by_which_name(changes: dict[str, str], words: str) -> None:
    environ = {**BOTH, **{f"INFERFLUX_{name}": value for name, value in changes.items()}}
    with pytest.raises(SettingsError, match=words):
        load(environ, {})


def test_names_of_keys_are_not_those_of_tokens(tmp_path: Path) -> None:
    path = tmp_path / "server.yaml"
    path.write_text("auth: {api_keys: {'oidc:abc': secret-1}}")
    with pytest.raises(SettingsError, match="belong to tokens"):
        load({}, {"--config": str(path)})
