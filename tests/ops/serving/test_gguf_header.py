"""Values of a GGUF header, and what is left of a broken one."""

import struct
from pathlib import Path

import pytest

from ops.serving.gguf_header import read_header
from ops.serving.sources import resolve
from tests.support.gguf import entry, string, text_entry, written

NAME = text_entry("general.name", "a model")
TYPE = entry("general.file_type", 4, struct.pack("<I", 3))
WANTED = ("general.file_type", "general.name")


def test_the_wanted_values_are_read(tmp_path: Path) -> None:
    assert read_header(written(tmp_path, TYPE, NAME), WANTED) == {"general.file_type": 3, "general.name": "a model"}
    assert read_header(written(tmp_path, NAME), WANTED) == {"general.name": "a model"}


def test_a_value_of_another_type_is_not_there(tmp_path: Path) -> None:
    assert read_header(written(tmp_path, entry("general.name", 7, b"\x01"), TYPE), WANTED) == {"general.file_type": 3}


@pytest.mark.parametrize(
    "broken",
    [
        string("general.file_type"),
        struct.pack("<Q", 2**63),
        struct.pack("<Q", 2**40),
        entry("a", 8, struct.pack("<Q", 2**63)),
        entry("a", 9, struct.pack("<IQ", 0, 2**62)),
        entry("a", 9, struct.pack("<IQ", 9, 1) * 5000),
        entry("a", 77, b""),
        struct.pack("<Q", 2) + b"\xff\xff",
    ],
    ids=["cut", "no key", "long key", "long text", "long list", "deep lists", "no type", "no text"],
)
def test_what_comes_before_a_break_is_read(tmp_path: Path, broken: bytes) -> None:
    assert read_header(written(tmp_path, NAME, broken, TYPE), WANTED) == {"general.name": "a model"}


def test_a_file_without_a_header_has_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"GGUF")
    assert read_header(tmp_path / "x", WANTED) == {}


def test_a_source_knows_its_architecture(tmp_path: Path) -> None:
    path = written(tmp_path, NAME, text_entry("general.architecture", "qwen3"))
    assert resolve(str(path)).architecture == "qwen3"
    assert resolve(str(written(tmp_path, NAME))).architecture is None
