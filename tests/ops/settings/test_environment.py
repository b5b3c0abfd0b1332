"""Every INFERFLUX_* variable means something or stops the start."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.settings.environment import scan
from ops.settings.errors import SettingsError
from ops.settings.loader import load


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("INFERFLUX_PORT_OVERIDE", "INFERFLUX_PORT_OVERRIDE"),
        ("INFERFLUX_PORT", "INFERFLUX_PORT_OVERRIDE"),
        ("INFERFLUX_SERVER__HTTPPORT", "INFERFLUX_SERVER__HTTP_PORT"),
        ("INFERFLUX_API_KEY", "INFERFLUX_API_KEYS"),
        ("INFERFLUX_MODELS__M__CONTEXTS", "INFERFLUX_MODELS__M__CONTEXT"),
    ],
)
def test_an_unknown_variable_is_named_with_the_nearest_known_one(name: str, nearest: str) -> None:
    with pytest.raises(SettingsError) as caught:
        scan({name: "8080"})
    assert f"{name} " in str(caught.value)
    assert repr(nearest) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INFERFLUX_TEST_REQUIRE", "all"),
        ("INFERFLUX_BUILD_LLAMA", "cpu"),
        ("INFERFLUX_SERVICE_HOST", "10.0.0.7"),
        ("INFERFLUX_SERVICE_PORT", "8080"),
        ("INFERFLUX_SERVICE_PORT_HTTP", "8080"),
        ("INFERFLUX_PORT", "tcp://10.0.0.7:8080"),
        ("INFERFLUX_PORT_8080_TCP", "tcp://10.0.0.7:8080"),
        ("INFERFLUX_PORT_8080_TCP_ADDR", "10.0.0.7"),
        ("INFERFLUX_EDGE_PORT", "tcp://10.0.0.7:8080"),
        ("INFERFLUX_EDGE_PORT_8080_TCP_PROTO", "tcp"),
        ("INFERCTL_PORT", "8080"),
        ("PATH", "/bin"),
    ],
)
def test_variables_of_others_are_passed_over(name: str, value: str) -> None:
    found = scan({name: value})
    assert (found.values, found.models) == ({}, [])


def test_alias_and_generic_name_must_not_contradict_each_other() -> None:
    same = {"INFERFLUX_LOG_LEVEL": "debug", "INFERFLUX_LOGGING__LEVEL": "debug"}
    assert load(same, {}).logging.level == "debug"
    with pytest.raises(SettingsError, match="different things"):
        scan({**same, "INFERFLUX_LOG_LEVEL": "info"})


def test_lists_are_separated_by_commas_and_maps_are_json() -> None:
    environ = {
        "INFERFLUX_SERVER__CORS_ORIGINS": "https://a.example, https://b.example",
        "INFERFLUX_AUTH__API_KEYS": '{"alice": {"key": "k1", "scopes": ["read"]}}',
    }
    settings = load(environ, {})
    assert settings.server.cors_origins == ("https://a.example", "https://b.example")
    assert settings.auth.api_keys[0].name == "alice"


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("k1:read\n")
    assert load({"INFERFLUX_API_KEYS_FILE": str(tmp_path / "keys")}, {}).auth.api_keys[0].key == "k1"
    with pytest.raises(SettingsError, match="INFERFLUX_API_KEYS_FILE"):
        load({"INFERFLUX_API_KEYS_FILE": str(tmp_path / "absent")}, {})
    with pytest.raises(SettingsError, match="unknown variable INFERFLUX_LOG_LEVEL_FILE"):
        scan({"INFERFLUX_LOG_LEVEL_FILE": "x"})


def test_an_empty_variable_of_what_has_no_key_is_as_good_as_none() -> None:
    assert load({"INFERFLUX_MODEL_PATH": "", "INFERFLUX_API_KEYS": ""}, {}) == load({}, {})


@given(st.from_regex(r"INFERFLUX_[A-Z_0-9]{1,30}", fullmatch=True), st.text(max_size=20))
def test_no_variable_is_overlooked(name: str, value: str) -> None:
    try:
        found = scan({name: value})
    except SettingsError:
        return
    is_of_others = name.startswith(("INFERFLUX_TEST_", "INFERFLUX_BUILD_")) or "_SERVICE_" in name or "_PORT" in name
    assert found.values or found.models or is_of_others or value == ""
