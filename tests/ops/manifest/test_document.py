"""What may stand in a manifest."""

import json
from pathlib import Path

import pytest

from ops.manifest.document import ManifestUnusable, read_manifest


def read(folder: Path, text: str | bytes) -> dict[str, str]:
    path = folder / "models.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return {model.id: model.source for model in read_manifest(path)}


@pytest.mark.parametrize(
    "text",
    [
        "models:\n  a: {source: echo}\n  org/b: {source: /m/b.gguf, context: 512, default: true}\n",
        "models:\n- {id: a, source: echo}\n- {id: org/b, source: /m/b.gguf}\n",
        "models: [{path: echo, id: a, backend: echo}, {path: /m/b.gguf, id: org/b}]",
        json.dumps({"models": [{"id": "a", "source": "echo"}, {"id": "org/b", "source": "/m/b.gguf"}]}),
        '{\n\t"models": {\n\t\t"a": {"source": "echo"},\n\t\t"org/b": {"source": "/m/b.gguf"}\n\t}\n}\n',
        b"\xef\xbb\xbfmodels: {a: {source: echo}, org/b: {source: /m/b.gguf}}",
    ],
)
def test_models_as_map_as_list_and_as_json(tmp_path: Path, text: str | bytes) -> None:
    assert read(tmp_path, text) == {"a": "echo", "org/b": "/m/b.gguf"}


def test_a_model_without_an_id_is_called_by_its_source(tmp_path: Path) -> None:
    text = "models: [{path: /m/a.Q4.gguf}, {source: 'hf:org/repo/b.gguf@v1'}, {source: 'hf:org/c'}]"
    assert list(read(tmp_path, text)) == ["a.Q4", "b", "c"]


def test_nobody_is_made_the_default_and_none_are_none(tmp_path: Path) -> None:
    assert read(tmp_path, "models: []") == read(tmp_path, "models: {}") == {}
    assert not any(model.default for model in read_manifest_of(tmp_path, "models: {a: {source: echo}}"))


def read_manifest_of(folder: Path, text: str) -> list[object]:
    path = folder / "models.yaml"
    path.write_text(text)
    return list(read_manifest(path))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "there is no list of models in it"),
        ("models:\n", "there is no list of models in it"),
        ("# models: []\n", "there is no list of models in it"),
        ("models: [{id: a, source: ec", "models.yaml: .*line 1"),
        ('{"models": [{"id": "a", ', "models.yaml"),
        ("models: {a: {sauce: echo}}", r"unknown key 'models.a.sauce' \(models.yaml:1\)"),
        ("models: {a: {source: echo, context: many}}", r"models.a.context \(models.yaml:1\)"),
        ("models: {a: {}}", "models.a.source is missing"),
        ("models: [{backend: echo}]", "a model without id"),
        ("models: [{id: a, source: echo}, {id: a, source: echo}]", "'a' twice"),
        ("models: {a: {source: echo, aliases: [b]}, b: {source: echo}}", "the name 'b' is already taken by 'a'"),
        ("server: {host: 0.0.0.0}\nmodels: []", r"server.host \(models.yaml:1\): nothing but models"),
        ("sever: 1", "unknown key 'sever'"),
        ("models: [{source: echo, path: echo}]", "the model's source stands twice"),
        (b"\xff\xfe\x00", "it is not text"),
        ("just words", "a map of names is expected"),
        ("a: &a [*a]", "models.yaml|unknown key"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(ManifestUnusable, match=words) as error:
        read(tmp_path, text)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ManifestUnusable, match=str(path)):
            read_manifest(path)
