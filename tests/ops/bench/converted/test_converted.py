"""The model in other formats is the same model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gguf", reason="gguf is not installed; run: make setup PARTS=torch")
pytest.importorskip("tokenizers", reason="tokenizers is not installed; run: make setup PARTS=torch")

from ops.bench.arms import make_arm
from ops.bench.converted.folder import as_folder
from ops.bench.converted.kept import kept
from ops.bench.converted.q8_0 import in_q8_0
from ops.bench.errors import ArmUnavailable
from ops.bench.plan import PeerPaths
from ops.bench.token_counts import token_counter
from ops.bench.weights import weights_format
from tests.ops.bench.figures import plan
from tests.workers.checkpoints.gguf_models import write_model
from workers.checkpoints import open_checkpoint

TEXT = "the rain in Spain"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "tiny.F32.gguf")


def test_q8_0_is_near_and_has_the_same_vocabulary(model: Path, tmp_path: Path) -> None:
    path = in_q8_0(model, tmp_path)
    assert weights_format(path) == "Q8_0"
    before, after = open_checkpoint(model), open_checkpoint(path)
    assert after.config == before.config
    assert after.chat_template == before.chat_template
    assert after.tokenizer.encode(TEXT, add_bos=True, parse_special=True) == before.tokenizer.encode(
        TEXT, add_bos=True, parse_special=True
    )
    for name in before.names():
        exact, found = before.read(name), after.read(name)
        # A block's largest number is 127 steps.
        assert np.abs(found - exact).max() <= (np.abs(exact).max() / 127 if exact.ndim == 2 else 0)
    matrices = [name for name in before.names() if before.read(name).ndim == 2]
    assert any((before.read(name) != after.read(name)).any() for name in matrices)


def test_what_is_in_q8_0_stays(model: Path, tmp_path: Path) -> None:
    path = in_q8_0(model, tmp_path)
    assert in_q8_0(path, tmp_path / "elsewhere") == path
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_has_the_same_weights_in_bf16(model: Path, tmp_path: Path) -> None:
    before, after = open_checkpoint(model), open_checkpoint(as_folder(model, tmp_path))
    assert replace(after.config, max_positions=0) == replace(before.config, max_positions=0)
    assert after.tokenizer.encode(TEXT, add_bos=True, parse_special=True) == before.tokenizer.encode(
        TEXT, add_bos=True, parse_special=True
    )
    assert sorted(after.names()) == sorted(before.names())
    for name in before.names():
        np.testing.assert_array_equal(after.read_bf16(name), before.read_bf16(name))


def test_it_is_made_once_for_each_state_of_the_file(model: Path, tmp_path: Path) -> None:
    made: list[Path] = []

    def make(path: Path) -> None:
        made.append(path)
        path.write_text("whole")

    first = kept(tmp_path, model, "a", make)
    assert kept(tmp_path, model, "a", make) == first
    assert first.read_text() == "whole" and len(made) == 1
    other = tmp_path / "tiny.gguf"
    other.write_bytes(b"another")
    assert kept(tmp_path, other, "a", make) != first


def test_a_half_written_one_is_not_taken_for_a_whole_one(model: Path, tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("no space left")

    with pytest.raises(ArmUnavailable, match=r"tiny\.F32\.gguf cannot be converted to a: no space left"):
        kept(tmp_path, model, "a", fail)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_peers_are_given_them(model: Path, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho version 1\n")
    program.chmod(0o755)
    given = replace(plan(model=model, peers=PeerPaths(program, vllm=program)), converted=tmp_path)
    told = {}
    for name in ("llama-server-q8", "vllm"):
        arm = make_arm(name, given)
        arm.check()
        told[name] = arm.describe()
    assert "--model tiny.Q8_0.gguf" in told["llama-server-q8"]["settings"]
    assert told["llama-server-q8"]["note"].startswith("weights Q8_0; ")
    assert "--model tiny-BF16" in told["vllm"]["settings"]


def test_a_peer_whose_model_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    model, program = tmp_path / "broken.gguf", tmp_path / "program"
    model.write_bytes(b"GGUF")
    program.write_text("#!/bin/sh\necho version 1\n")
    program.chmod(0o755)
    given = replace(plan(model=model, peers=PeerPaths(program, vllm=program)), converted=tmp_path)
    for name in ("llama-server-q8", "vllm"):
        with pytest.raises(ArmUnavailable, match=r"broken\.gguf cannot be converted"):
            make_arm(name, given).check()


def test_tokens_are_counted_by_the_models_own_vocabulary(model: Path, tmp_path: Path) -> None:
    count = token_counter(model)
    assert count is not None
    assert count(TEXT) == len(open_checkpoint(model).tokenizer.encode(TEXT, add_bos=True, parse_special=True))
    assert token_counter(None) is None
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    assert token_counter(broken) is None
