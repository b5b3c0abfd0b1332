"""What is remembered, and when it counts."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from ops.calibration.choice import decide
from ops.calibration.key import Key, key_of
from ops.calibration.results import FOLDER, Results
from ops.serving.sources import Source, SourceKind
from ops.settings.models import model_from_source
from tests.ops.calibration.figures import failed, measured
from workers.runners.devices import Device

RIVALS = ("llama_cpp", "torch")
MODEL = replace(model_from_source("/m/tiny.gguf"), sequences=8, context=512)
VERDICT = decide([measured("llama_cpp", 184), measured("torch", 748)], 8)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF" + bytes(20))
    return path


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "data")


def key(weights: Path, **settings: int | str) -> Key:
    source = Source(SourceKind.GGUF, str(weights))
    return key_of(replace(MODEL, **settings), source, RIVALS, Device.CPU)  # type: ignore[arg-type]


def remembered_file(tmp_path: Path) -> Path:
    (found,) = (tmp_path / "data" / FOLDER).glob("*.json")
    return found


def test_a_verdict_is_found_again_by_another_process(results: Results, weights: Path, tmp_path: Path) -> None:
    assert results.exact(key(weights)) is None
    assert results.put(key(weights), VERDICT)
    assert Results(tmp_path / "data").exact(key(weights)) == VERDICT


def test_loads_of_about_one_size_share_it(results: Results, weights: Path) -> None:
    results.put(key(weights), VERDICT)
    assert results.exact(key(weights, sequences=5, context=300)) == VERDICT
    for other in ({"sequences": 9}, {"context": 1024}, {"kv_type": "q8_0"}, {"threads": 1}, {"gpu_layers": 0}):
        assert results.exact(key(weights, **other)) is None  # type: ignore[arg-type]
        assert results.similar(key(weights, **other)) == VERDICT  # type: ignore[arg-type]


def test_another_file_machine_or_library_is_another_question(results: Results, weights: Path) -> None:
    results.put(key(weights), VERDICT)
    here = key(weights)
    for changed in (
        {"processor": "another"},
        {"features": "fewer"},
        {"processors": here.processors + 1},
        {"system": "Linux 1.0"},
        {"device": str(Device.CUDA)},
        {"backends": {**here.backends, "torch": "99"}},
        {"backends": {"llama_cpp": here.backends["llama_cpp"], "mlx": "1"}},
    ):
        there = here.model_copy(update=changed)
        assert results.exact(there) is None
        assert results.similar(there) is None
    stat = weights.stat()
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert results.exact(key(weights)) is None
    assert results.similar(key(weights)) is None


@pytest.mark.parametrize("kept", [0, 1, 100, -2])
def test_half_a_file_is_none(results: Results, weights: Path, tmp_path: Path, kept: int) -> None:
    results.put(key(weights), VERDICT)
    path = remembered_file(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    assert results.exact(key(weights)) is None
    assert results.similar(key(weights, sequences=32)) is None
    results.put(key(weights), VERDICT)
    assert results.exact(key(weights)) == VERDICT


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"more": 1},
        {"verdict": None},
        {"verdict": {"backend": "torch"}},
        {"verdict": {**json.loads(VERDICT.model_dump_json()), "backend": "mlx"}},
        {"key": {}},
    ],
)
def test_what_we_would_not_have_written_is_none(
    results: Results, weights: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    results.put(key(weights), VERDICT)
    path = remembered_file(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert results.exact(key(weights)) is None


def test_a_file_under_the_name_of_another_key_is_none(results: Results, weights: Path, tmp_path: Path) -> None:
    results.put(key(weights), VERDICT)
    path = remembered_file(tmp_path)
    path.rename(path.with_name(f"{key(weights, sequences=32).digest()}.json"))
    assert results.exact(key(weights, sequences=32)) is None


def test_a_place_that_cannot_be_written_is_no_failure(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    results = Results(tmp_path / "taken")
    assert not results.put(key(weights), VERDICT)
    assert results.exact(key(weights)) is None


def test_a_verdict_for_nobody_helps_no_other_load(results: Results, weights: Path) -> None:
    nobody = decide([failed("llama_cpp"), failed("torch")], 8)
    results.put(key(weights), nobody)
    assert results.exact(key(weights)) == nobody
    assert results.similar(key(weights, sequences=32)) is None
