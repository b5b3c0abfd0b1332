"""The well-known key exists only where nobody else can reach it."""

import stat
from pathlib import Path

import pytest

from ops.errors import CannotStart
from ops.loopback import DEV_KEY, is_loopback
from ops.serving.edge import edge_config
from ops.serving.keys import effective_keys, read_pepper, require_keys, shown_key
from ops.settings.loader import load
from producer.config import Scope


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.0.1", "::1", "[::1]", "LOCALHOST"])
def test_on_loopback_without_keys_the_known_key_opens_everything(host: str) -> None:
    assert is_loopback(host)
    (key,) = effective_keys(load({}, {"--host": host}))
    assert (key.key, set(key.scopes)) == (DEV_KEY, {"generate", "read", "admin"})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "localhost.example.org"])
def test_elsewhere_a_key_must_be_configured_or_stored(host: str, tmp_path: Path) -> None:
    assert not is_loopback(host)
    settings = load({}, {"--host": host, "--data-dir": str(tmp_path)})
    assert effective_keys(settings) == ()
    with pytest.raises(CannotStart, match="no API key"):
        require_keys(settings)
    # Then the edge decides, which sees what is stored.
    (tmp_path / "policy.store").touch()
    require_keys(settings)
    assert effective_keys(load({"INFERFLUX_API_KEYS": "k"}, {"--host": host}))[0].key == "k"


def test_a_configured_key_replaces_the_known_one_and_is_never_shown() -> None:
    settings = load({"INFERFLUX_API_KEYS": "hunter2"}, {})
    assert [key.key for key in effective_keys(settings)] == ["hunter2"]
    assert shown_key(takes_default_key=False) == "$INFERCTL_API_KEY"
    assert shown_key(takes_default_key=True) == DEV_KEY


def test_the_pepper_is_made_once_and_kept_private(tmp_path: Path) -> None:
    settings = load({}, {"--data-dir": str(tmp_path / "data")})
    pepper = read_pepper(settings)
    assert len(pepper) >= 32
    assert read_pepper(settings) == pepper
    assert stat.S_IMODE((tmp_path / "data" / "pepper").stat().st_mode) == 0o600
    given = load({"INFERFLUX_KEY_PEPPER": "salt"}, {"--data-dir": str(tmp_path / "other")})
    assert read_pepper(given) == b"salt"
    assert not (tmp_path / "other").exists()


def test_the_edge_is_told_what_the_settings_say(tmp_path: Path) -> None:
    environ = {"INFERFLUX_SERVER__STATUS_HOLD_S": "3", "INFERFLUX_FAIRNESS_PRIORITY_THRESHOLD": "7"}
    environ["INFERFLUX_AUTH__API_KEYS"] = '{"ops": {"key": "k", "scopes": ["admin"], "models": ["a*"], "tenant": "t"}}'
    config = edge_config(load(environ, {"--data-dir": str(tmp_path), "--port": "0"}), "edge-1")
    assert (config.port, config.status_hold_s, config.high_priority_threshold) == (0, 3, 7)
    (key,) = config.keys
    assert (key.name, key.scopes, key.models, key.tenant, key.ceiling) == ("ops", (Scope.ADMIN,), ("a*",), "t", None)
    assert config.run_file == tmp_path / "run.json"
