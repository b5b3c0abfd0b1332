"""Names, orders, biases, norms and rotations, against llama.cpp on the same file: logits of models computed plainly."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.safetensors_folder import tiny_folder
from tests.workers.checkpoints.conftest import OpenModel
from tests.workers.checkpoints.gguf_models import write_model
from tests.workers.checkpoints.reference import all_logits
from workers.checkpoints import Checkpoint, open_checkpoint
from workers.checkpoints.model_config import FactorScaling, LinearScaling, YarnScaling

pytestmark = pytest.mark.llama

# A wrong order of rows, a bias or a norm left out come to 0.1 and more.
MAX_DIFFERENCE = 0.002
TOKENS = [1, *range(10, 200, 7), 2]
FACTORS = np.linspace(1, 8, 8).astype(np.float32)
YARN: dict[str, Any] = {"arch__rope__scaling__type": "yarn", "arch__rope__scaling__factor": 4.0}
SCALINGS: dict[str, tuple[type, dict[str, Any]]] = {
    "linear": (LinearScaling, {"arch__rope__scaling__type": "linear", "arch__rope__scaling__factor": 2.5}),
    "linear without a name": (LinearScaling, {"arch__rope__scaling__factor": 2.5}),
    "yarn": (YarnScaling, {**YARN, "arch__rope__scaling__original_context_length": 64}),
    "yarn with its own amplitude": (YarnScaling, {**YARN, "arch__rope__scaling__attn_factor": 0.75}),
    "llama3": (FactorScaling, {"extra_tensors": {"rope_freqs.weight": FACTORS}}),
}


def relative_difference(path: Path, open_model: OpenModel) -> float:
    """The largest difference of two logits, as a share of what logits span. llama.cpp keeps KV in half precision."""
    driver = open_model(path)
    theirs = driver.all_logits(driver.create(), TOKENS)
    ours = all_logits(open_checkpoint(path), TOKENS)
    return float(np.abs(ours - theirs).max() / np.ptp(ours))


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_each_architecture(tmp_path: Path, open_model: OpenModel, architecture: str) -> None:
    assert relative_difference(write_model(tmp_path / "tiny.gguf", architecture), open_model) < MAX_DIFFERENCE


@pytest.mark.parametrize("name", SCALINGS)
def test_each_rope_scaling(tmp_path: Path, open_model: OpenModel, name: str) -> None:
    kind, changes = SCALINGS[name]
    path = write_model(tmp_path / "tiny.gguf", **changes)
    scaling = open_checkpoint(path).config.rope_scaling
    assert isinstance(scaling, kind)
    assert relative_difference(path, open_model) < MAX_DIFFERENCE


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_a_folder_and_a_gguf_file_of_one_model_are_read_alike(tmp_path: Path, architecture: str) -> None:
    folder = open_checkpoint(tiny_folder(architecture))
    file = open_checkpoint(write_model(tmp_path / "tiny.gguf", architecture))
    assert folder.config == file.config
    assert folder.names() == file.names()
    for name in folder.names():
        np.testing.assert_array_equal(folder.read(name), file.read(name))
        np.testing.assert_array_equal(folder.read_bf16(name), file.read_bf16(name))
    assert folder.tokenizer.end_ids == file.tokenizer.end_ids


def test_the_real_model(real: Checkpoint, open_model: OpenModel) -> None:
    prompt = real.tokenizer.encode("The capital of France is", add_bos=True, parse_special=False)
    driver = open_model(real.path)
    theirs = driver.all_logits(driver.create(), prompt)
    ours = all_logits(real, prompt)
    # llama.cpp rounds activations to eight bits; a wrong order of rows is off by tens.
    assert np.abs(ours - theirs).max() < 2
    assert (ours.argmax(axis=-1) == theirs.argmax(axis=-1)).mean() >= 0.8
