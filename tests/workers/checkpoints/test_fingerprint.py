"""A checkpoint's fingerprint follows its content."""

from pathlib import Path

import pytest

from tests.support.safetensors_folder import edit_json, tiny_copy
from tests.workers.checkpoints.gguf_models import write_model
from workers.checkpoints import open_checkpoint
from workers.runners.remembered import Remembered


def fingerprint(path: Path, remembered: Remembered) -> str:
    return open_checkpoint(path, remembered).fingerprint


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "model-00002-of-00002.safetensors"])
def test_a_folders_fingerprint_changes_with_any_file(tmp_path: Path, remembered: Remembered, file: str) -> None:
    folder = tiny_copy(tmp_path / "one", shards=2)
    other = tiny_copy(tmp_path / "two", shards=2)
    before = fingerprint(folder, remembered)
    assert fingerprint(other, remembered) == before
    if file.endswith(".json"):
        edit_json(folder / file, note="changed")
    else:
        data = bytearray((folder / file).read_bytes())
        data[-1] ^= 1
        (folder / file).write_bytes(data)
    assert fingerprint(folder, remembered) != before


def test_a_gguf_files_fingerprint_is_its_contents(tmp_path: Path, remembered: Remembered) -> None:
    first = write_model(tmp_path / "first.gguf")
    second = write_model(tmp_path / "second.gguf")
    third = write_model(tmp_path / "third.gguf", tokenizer__chat_template="{{ messages }}")
    assert fingerprint(first, remembered) == fingerprint(second, remembered) != fingerprint(third, remembered)


def test_a_large_file_is_hashed_once(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf")
    remembered = Remembered(tmp_path / "remembered.json")
    fingerprint(path, remembered)
    remembered.put(next(iter(remembered._read())), "another")
    assert fingerprint(path, remembered) != fingerprint(path, Remembered(tmp_path / "empty.json"))
