"""The weights' format comes from the file's header, wherever it stands there."""

import struct
from pathlib import Path

import pytest

from ops.bench.weights import weights_format
from tests.support.gguf import entry, string, written


def file_type(number: int) -> bytes:
    return entry("general.file_type", 4, struct.pack("<I", number))


BEFORE = (
    entry("general.name", 8, string("a model")),
    entry("a.flag", 7, b"\x01"),
    entry("a.float", 12, struct.pack("<d", 1.5)),
    entry("tokens", 9, struct.pack("<IQ", 8, 2) + string("a") + string("bc")),
    entry("scores", 9, struct.pack("<IQ", 6, 3) + struct.pack("<3f", 1, 2, 3)),
    entry("nested", 9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 0, 2) + b"\x01\x02"),
)


@pytest.mark.parametrize(("number", "name"), [(0, "F32"), (3, "Q4_1"), (7, "Q8_0"), (15, "Q4_K_M"), (32, "BF16")])
def test_format_after_all_kinds_of_entries(tmp_path: Path, number: int, name: str) -> None:
    assert weights_format(written(tmp_path, *BEFORE, file_type(number))) == name


def test_unknown_when_the_file_does_not_say(tmp_path: Path) -> None:
    assert weights_format(written(tmp_path, *BEFORE)) == "unknown"
    assert weights_format(written(tmp_path, file_type(1024))) == "unknown"


def test_unknown_when_the_header_is_cut(tmp_path: Path) -> None:
    path = written(tmp_path, *BEFORE, file_type(3))
    path.write_bytes(path.read_bytes()[:-2])
    assert weights_format(path) == "unknown"
