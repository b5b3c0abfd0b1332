"""Packed weights on disk: found again, checked before they are used, bounded, and never needed."""

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.models import why_no_torch
from tests.support.safetensors_folder import tiny_copy
from tests.workers.runners.torch.conftest import OpenModel

pytestmark = [pytest.mark.torch, pytest.mark.skipif(bool(why_no_torch()), reason=why_no_torch() or "")]

Arrays = dict[str, np.ndarray]
WEIGHTS: Arrays = {
    "head.panels": np.arange(3000, dtype=np.int16).reshape(3, 1000),
    "head.units": np.linspace(0, 1, 7, dtype=np.float32),
    "norm": np.ones(1, np.float32),
}


class Packer:
    """Counts how often the weights were packed."""

    def __init__(self, arrays: Arrays = WEIGHTS) -> None:
        self.arrays = arrays
        self.packed = 0

    def __call__(self) -> Iterator[tuple[str, np.ndarray]]:
        self.packed += 1
        yield from self.arrays.items()


def assert_same(got: Arrays, expected: Arrays = WEIGHTS) -> None:
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name].reshape(-1).view(array.dtype), array.reshape(-1))


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.weights"))


def test_what_was_packed_once_is_mapped_afterwards(tmp_path: Path) -> None:
    from workers.runners.torch.native.weight_cache import WeightCache

    pack = Packer()
    for _ in range(3):
        got = WeightCache(tmp_path / "new").get_or_pack(["model", "kernel"], pack)
        assert_same(got)
        assert not any(array.flags.writeable for array in got.values())
        assert all(array.ctypes.data % 64 == 0 for array in got.values())
    assert pack.packed == 1
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_another_model_or_kernel_has_weights_of_its_own(tmp_path: Path) -> None:
    from workers.runners.torch.native.weight_cache import WeightCache

    cache, other = WeightCache(tmp_path), Packer({"norm": np.zeros(5, np.float32)})
    assert_same(cache.get_or_pack(["model", "kernel"], Packer()))
    assert_same(cache.get_or_pack(["model", "kernel 2"], other), other.arrays)
    assert_same(cache.get_or_pack(["model 2", "kernel"], other), other.arrays)
    assert other.packed == 2
    # Parts do not run into each other.
    assert_same(cache.get_or_pack(["modelk", "ernel"], other), other.arrays)
    assert other.packed == 3


def flip(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 0x10
    return bytes(changed)


@pytest.mark.parametrize(
    "spoil",
    [
        *(lambda data, share=share: flip(data, int(share * (len(data) - 1))) for share in (0, 0.3, 0.9, 0.97, 1)),
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data[:20],
        lambda data: b"",
        lambda data: data + b"\0",
        lambda data: bytes(len(data)),
    ],
)
def test_spoilt_files_are_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil) -> None:  # type: ignore[no-untyped-def]
    from workers.runners.torch.native.weight_cache import WeightCache

    pack, cache = Packer(), WeightCache(tmp_path)
    cache.get_or_pack(["model"], pack)
    (file,) = files(tmp_path)
    file.write_bytes(spoil(file.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert_same(cache.get_or_pack(["model"], pack))
    assert "made anew" in caplog.text
    assert pack.packed == 2
    assert_same(cache.get_or_pack(["model"], pack))
    assert pack.packed == 2


def test_a_file_under_the_name_of_another_is_not_used(tmp_path: Path) -> None:
    from workers.runners.torch.native.weight_cache import WeightCache

    cache, other = WeightCache(tmp_path), Packer({"norm": np.zeros(5, np.float32)})
    cache.get_or_pack(["model"], Packer())
    (first,) = files(tmp_path)
    cache.get_or_pack(["model 2"], other)
    (second,) = (file for file in files(tmp_path) if file != first)
    shutil.copy(first, second)
    assert_same(cache.get_or_pack(["model 2"], other), other.arrays)


@pytest.mark.parametrize("cause", ["a file in its place", "a full disk", "a read-only disk"])
def test_without_a_place_to_keep_them_they_are_in_memory_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, cause: str
) -> None:
    from workers.runners.torch.native import weight_cache, weight_file

    folder = tmp_path / "cache"
    if cause == "a file in its place":
        folder.write_text("")
    elif cause == "a full disk":
        full = shutil.disk_usage(tmp_path)._replace(free=1000)
        monkeypatch.setattr(weight_file.shutil, "disk_usage", lambda _: full)
    else:

        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        monkeypatch.setattr(weight_cache.tempfile, "TemporaryDirectory", refuse)
    with caplog.at_level(logging.WARNING):
        assert_same(weight_cache.WeightCache(folder).get_or_pack(["model"], Packer()))
    assert "not kept" in caplog.text
    assert files(folder) == []
    assert not folder.is_dir() or list(folder.iterdir()) == []


def test_those_not_used_for_longest_make_room(tmp_path: Path) -> None:
    from workers.runners.torch.native.weight_cache import WeightCache

    pack = Packer()
    WeightCache(tmp_path).get_or_pack(["0"], pack)
    size = files(tmp_path)[0].stat().st_size
    cache = WeightCache(tmp_path, max_bytes=3 * size + size // 2)
    for number in range(3):
        cache.get_or_pack([str(number)], pack)
        for age, file in enumerate(sorted(files(tmp_path), key=lambda file: file.stat().st_mtime, reverse=True)):
            os.utime(file, (1000 - age, 1000 - age))
    assert pack.packed == 3
    cache.get_or_pack(["0"], pack)
    cache.get_or_pack(["3"], pack)
    assert pack.packed == 4
    assert len(files(tmp_path)) == 3
    for number in (0, 2, 3):
        cache.get_or_pack([str(number)], pack)
    assert pack.packed == 4
    cache.get_or_pack(["1"], pack)
    assert pack.packed == 5


def test_what_is_larger_than_the_folder_may_be_is_not_kept(tmp_path: Path) -> None:
    from workers.runners.torch.native.weight_cache import WeightCache

    assert_same(WeightCache(tmp_path, max_bytes=100).get_or_pack(["model"], Packer()))
    assert files(tmp_path) == []


def test_what_a_killed_process_left_half_written_goes(tmp_path: Path) -> None:
    from workers.runners.torch.native.weight_cache import WeightCache

    left, busy = tmp_path / "left" / "a.weights", tmp_path / "busy" / "a.weights"
    for file in (left, busy):
        file.parent.mkdir()
        file.write_bytes(b"half")
    os.utime(left, (1000, 1000))
    WeightCache(tmp_path).get_or_pack(["model"], Packer())
    assert not left.parent.exists()
    assert busy.exists()


def test_mapped_weights_outlive_their_file(tmp_path: Path) -> None:
    from workers.runners.torch.native.weight_cache import WeightCache

    got = WeightCache(tmp_path / "cache").get_or_pack(["model"], Packer())
    shutil.rmtree(tmp_path / "cache")
    assert_same(got)


def test_a_model_computes_the_same_from_the_cache(
    open_model: OpenModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed into memory, packed into a file, found there, and found there spoilt."""
    from workers.runners.torch.native import decoder, packing
    from workers.runners.torch.native.build import CannotBuild, kernel_library
    from workers.runners.torch.native.weight_cache import WeightCache

    try:
        kernel_library()
    except CannotBuild as reason:
        pytest.skip(f"no kernel here: {reason}")
    model, folder = tiny_copy(tmp_path / "model", "qwen3", "BF16"), tmp_path / "cache"
    monkeypatch.setattr(decoder, "WeightCache", lambda: WeightCache(folder))

    def logits() -> np.ndarray:
        driver = open_model(model, context=64, sequences=1)
        return driver.feed(driver.create(), [5, 6, 7, 8] * 10)

    expected = logits()
    assert files(folder) == []
    monkeypatch.setattr(packing, "_LEAST_PARAMETERS", 0)
    np.testing.assert_array_equal(logits(), expected)
    (file,) = files(folder)
    np.testing.assert_array_equal(logits(), expected)
    file.write_bytes(flip(file.read_bytes(), 1000))
    np.testing.assert_array_equal(logits(), expected)
