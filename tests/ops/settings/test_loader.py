"""File < environment < flags, and every way to get it wrong is one line that names the culprit."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.settings.errors import SettingsError
from ops.settings.loader import load
from ops.settings.table import PLAIN, TABLE


def write(folder: Path, text: str) -> dict[str, str]:
    path = folder / "server.yaml"
    path.write_text(text)
    return {"--config": str(path)}


def test_environment_wins_over_file_and_flag_over_both(tmp_path: Path) -> None:
    flags = write(tmp_path, "server: {http_port: 1001}\nlogging: {level: debug}\n")
    assert load({}, flags).server.http_port == 1001
    environ = {"INFERFLUX_PORT_OVERRIDE": "1002"}
    assert load(environ, flags).server.http_port == 1002
    assert load(environ, {**flags, "--port": "1003"}).server.http_port == 1003
    assert load(environ, flags).logging.level == "debug"


def test_the_sample_file_says_what_the_defaults_are() -> None:
    sample = Path(__file__).parents[3] / "ops" / "config" / "server.yaml"
    settings = load({}, {"--config": str(sample)})
    assert replace(settings, server=replace(settings.server, is_port_given=False)) == load({}, {})


@pytest.mark.parametrize(
    ("environ", "flags", "words"),
    [
        ({"INFERFLUX_SERVER__HTTP_PORT": "99999"}, {}, ["server.http_port", "INFERFLUX_SERVER__HTTP_PORT", "65535"]),
        ({"INFERFLUX_LOG_LEVEL": "loud"}, {}, ["logging.level", "'loud'", "one of debug, info"]),
        ({}, {"--port": "http"}, ["server.http_port", "flag --port", "'http'"]),
        ({}, {"--backend": "cuda"}, ["--backend", "one of auto, llama_cpp, torch, mlx, echo"]),
        ({"INFERFLUX_API_KEYS": "secret:root"}, {}, ["INFERFLUX_API_KEYS", "'root'", "generate, read, admin"]),
        ({"INFERFLUX_SERVER__REQUEST_TIMEOUT_S": "nan"}, {}, ["server.request_timeout_s", "seconds from 1 to 2700"]),
    ],
)
def test_a_bad_value_is_named_with_its_origin_and_what_is_allowed(
    environ: dict[str, str], flags: dict[str, str], words: list[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(environ, flags)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message
    assert caught.value.is_usage == bool(flags)


def test_a_secret_is_not_repeated_in_an_error() -> None:
    with pytest.raises(SettingsError) as caught:
        load({"INFERFLUX_API_KEYS": "hunter2:nonsense"}, {})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("row", [row for row in TABLE if not row.available and row.env], ids=lambda row: str(row.env))
def test_a_feature_of_later_is_refused_by_name_unless_off(row) -> None:  # type: ignore[no-untyped-def]
    on = {"boolean": "true", "integer": "3", "choice": "tenant" if "scope" in row.key else "clock"}
    with pytest.raises(SettingsError, match="not available in this version"):
        load({row.env: on.get(row.kind.name, "something")}, {})
    off = row.kind.show(row.default) if row.default is not None else ""
    load({row.env: off}, {})


def test_api_keys_of_the_environment_add_to_those_of_the_file(tmp_path: Path) -> None:
    flags = write(tmp_path, "auth: {api_keys: {alice: {key: k1, scopes: [read]}, bob: k2}}\n")
    keys = load({"INFERFLUX_API_KEYS": "k3,k4:admin+read"}, flags).auth.api_keys
    assert [(key.name, key.key, key.scopes) for key in keys] == [
        ("alice", "k1", ("read",)),
        ("bob", "k2", ("generate", "read")),
        (None, "k3", ("generate", "read")),
        (None, "k4", ("admin", "read")),
    ]


def test_api_keys_may_be_a_list_with_secrets_in_files(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-a-file\n")
    flags = write(tmp_path, f"auth: {{api_keys: [{{key_file: {tmp_path}/key, scopes: [admin], ceiling: batch}}]}}\n")
    (key,) = load({}, flags).auth.api_keys
    assert (key.key, key.scopes, key.ceiling, key.name) == ("from-a-file", ("admin",), "batch", None)
    assert "from-a-file" not in repr(key)


def test_one_key_twice_is_an_error() -> None:
    with pytest.raises(SettingsError, match="twice"):
        load({"INFERFLUX_API_KEYS": "k,k"}, {})


def test_a_url_turns_the_embedded_server_off() -> None:
    assert load({}, {}).nats.embedded
    settings = load({"INFERFLUX_NATS__EMBEDDED": "true"}, {"--nats-url": "nats://elsewhere:4222"})
    assert not settings.nats.embedded


def test_what_was_given_is_told_from_the_default() -> None:
    assert not load({}, {}).nats.is_port_given
    assert load({}, {"--nats-port": "4222"}).nats.is_port_given


@given(st.sampled_from(sorted(PLAIN)), st.text(max_size=40))
def test_any_text_in_any_key_is_read_or_refused_in_one_line(key: str, value: str) -> None:
    environ = {PLAIN[key].generic_env or "": value}
    try:
        load(environ, {})
    except SettingsError as error:
        assert key in str(error)
        assert "\n" not in str(error)


@given(st.sampled_from([row for row in TABLE if row.available and row.key in PLAIN and row.kind.name != "map"]))
def test_the_default_as_it_is_printed_reads_back_as_itself(row) -> None:  # type: ignore[no-untyped-def]
    if row.default is not None:
        assert row.kind.read(row.kind.show(row.default)) == row.default


def test_every_key_has_its_own_variables() -> None:
    variables = [variable for row in TABLE for variable in row.variables]
    assert len(variables) == len(set(variables))
    labels = [row.label for row in TABLE]
    assert len(labels) == len(set(labels))
