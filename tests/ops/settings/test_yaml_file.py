"""The configuration file: line numbers, unknown keys, both forms of models."""

from pathlib import Path

import pytest

from ops.settings.errors import SettingsError
from ops.settings.loader import load


def read(folder: Path, text: str) -> object:
    path = folder / "server.yaml"
    path.write_text(text)
    return load({}, {"--config": str(path)})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("server:\n  htpp_port: 1\n", ["'server.htpp_port'", "server.yaml:2", "'server.http_port'"]),
        ("sever: {}\n", ["'sever'", "server.yaml:1", "'server'"]),
        ("server:\n  http_port: 1\n  http_port: 2\n", ["http_port", "server.yaml:3", "twice"]),
        ("server: 8080\n", ["server", "server.yaml:1", "map"]),
        ("server: [a\n", ["server.yaml"]),
        ("server:\n  http_port: yes\n", ["server.http_port", "server.yaml:2", "whole number"]),
        ("models:\n  a:\n    sauce: x\n", ["models.a.sauce", "server.yaml:3", "'source'"]),
        ("models:\n- source: echo\n", ["without id"]),
        ("models:\n- {id: a, source: echo}\n- {id: a, source: echo}\n", ["'a' twice"]),
        ("runtime:\n  nvme_offload:\n    workers: 2\n", ["not available in this version", "server.yaml:3"]),
        ("- 1\n", ["map"]),
        ("server:\n  http_port: &a [*a]\n", ["server.yaml", "recursive"]),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.yaml: No such file"):
        load({}, {"--config": str(tmp_path / "absent.yaml")})


def test_models_are_a_map_or_a_list(tmp_path: Path) -> None:
    as_map = read(
        tmp_path, "models: {a: {source: echo, aliases: [x]}, org/b: {source: 'echo:random', default: true}}\n"
    )
    as_list = read(
        tmp_path, "models:\n- {id: a, source: echo, aliases: x}\n- {id: org/b, source: 'echo:random', default: on}\n"
    )
    assert as_map == as_list


@pytest.mark.parametrize("text", ["", "---\n", "server:\n", "models:\n", "# only a comment\n"])
def test_an_empty_file_or_section_changes_nothing(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == load({}, {})
