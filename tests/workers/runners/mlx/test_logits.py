"""The numbers, against the same computation in numpy."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.support.models import find_model, why_no_mlx

pytest.importorskip("mlx.core", reason="mlx is not installed; run: make setup PARTS=mlx")

from tests.conformance.driver import Driver, mean_kl
from tests.support.safetensors_folder import tiny_folder
from tests.workers.runners.mlx.feeding import Piece, feed, new_handle, tokens
from tests.workers.runners.mlx.reference import frequencies, reference_logits
from tests.workers.runners.mlx.small_models import LLAMA, MISTRAL, QWEN2, QWEN3, RandomTensors, small_session
from workers.checkpoints import Checkpoint, ModelConfig, open_checkpoint
from workers.checkpoints.model_config import FactorScaling, LinearScaling, Llama3Scaling, YarnScaling
from workers.checkpoints.rope import rotation
from workers.runners.base import RunnerSpec
from workers.runners.mlx.loading import Choices
from workers.runners.mlx.runner import MlxRunner
from workers.runners.remembered import Remembered

pytestmark = [pytest.mark.mlx, pytest.mark.skipif(bool(why_no_mlx()), reason=why_no_mlx() or "")]

SCALINGS = [
    LinearScaling(4.0),
    Llama3Scaling(8.0, 1.0, 4.0, 64),
    FactorScaling((1.0, 1.0, 2.0, 3.0, 4.0, 8.0)),
]
# What the reference file is, read off its authors' own configuration.
SMOLLM2 = ModelConfig(
    architecture="llama",
    vocab_size=49152,
    hidden_size=576,
    num_layers=30,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    intermediate_size=1536,
    rms_norm_eps=1e-5,
    rope_theta=100_000.0,
    rope_scaling=None,
    tie_word_embeddings=True,
    attention_bias=False,
    qk_norm=False,
    sliding_window=None,
    max_positions=8192,
)


class ReadOnce:
    def __init__(self, checkpoint: Checkpoint) -> None:
        self.read = cache(checkpoint.read)


@pytest.mark.parametrize("config", [LLAMA, MISTRAL, QWEN2, QWEN3], ids=lambda config: config.architecture)
def test_each_architecture_equals_the_reference(config: ModelConfig) -> None:
    tensors, prompt = RandomTensors(config), tokens(40, seed=2)
    expected = reference_logits(tensors, config, prompt, frequencies(config))
    session = small_session(tensors)
    handle = new_handle(session)
    rows = [feed(session, Piece(handle, part))[0] for part in (prompt[:25], prompt[25:38], prompt[38:39], prompt[39:])]
    np.testing.assert_allclose(np.concatenate(rows), expected, atol=2e-3)
    other = replace(config, rope_theta=config.rope_theta * 10)
    assert np.abs(reference_logits(tensors, other, prompt, frequencies(other)) - expected).max() > 0.1


@pytest.mark.parametrize("scaling", SCALINGS, ids=lambda scaling: type(scaling).__name__)
def test_each_scaling_equals_the_reference(scaling: LinearScaling | Llama3Scaling | FactorScaling) -> None:
    _check_scaling(replace(LLAMA, rope_scaling=scaling))


def test_yarn_equals_the_reference() -> None:
    config = replace(LLAMA, rope_scaling=YarnScaling(4.0, 64, 32.0, 1.0, None, True))
    assert rotation(config).amplitude != 1
    _check_scaling(config)


def _check_scaling(config: ModelConfig) -> None:
    tensors, prompt = RandomTensors(config), tokens(40, seed=3)
    expected = reference_logits(tensors, config, prompt, *rotation(config))
    session = small_session(tensors)
    rows = feed(session, Piece(new_handle(session), prompt))[0]
    np.testing.assert_allclose(rows, expected, atol=2e-3)
    plain = reference_logits(tensors, config, prompt, frequencies(config))
    assert np.abs(plain - expected).max() > 0.1


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "qwen3"])
def test_a_folder_with_safetensors_equals_the_reference(architecture: str) -> None:
    folder = tiny_folder(architecture)
    runner = MlxRunner(Choices("f32"))
    driver = Driver(runner, runner.open(RunnerSpec("model", str(folder), context=64, sequences=1)))
    prompt = list(range(3, 43))
    rows = driver.feed(driver.create(), prompt)
    runner.close()
    tensors = open_checkpoint(folder)
    expected = reference_logits(tensors, tensors.config, prompt, *rotation(tensors.config))
    np.testing.assert_allclose(rows, expected, atol=2e-3)


# Random weights are less forgiving than a trained model's.
@pytest.mark.parametrize(
    ("compute_type", "kv_type", "max_kl"), [("bf16", "bf16", 0.1), ("f32", "bf16", 0.02), ("f32", "f16", 0.001)]
)
def test_narrower_numbers_are_near_the_reference(compute_type: str, kv_type: str, max_kl: float) -> None:
    tensors, prompt = RandomTensors(LLAMA), tokens(40, seed=4)
    expected = reference_logits(tensors, LLAMA, prompt, frequencies(LLAMA))
    session = small_session(tensors, compute_type=compute_type, kv_type=kv_type)
    rows = feed(session, Piece(new_handle(session), prompt))[0]
    assert np.abs(rows - expected).max() > 0
    assert mean_kl(expected.astype(np.float32), rows) <= max_kl


def test_the_real_model_equals_the_reference(tmp_path: Path) -> None:
    path = find_model()
    assert path is not None
    runner = MlxRunner(Choices("f32", keep_packed=False))
    driver = Driver(runner, runner.open(RunnerSpec("model", str(path), context=64, sequences=1)))
    prompt = driver.facts.tokenizer.encode("The capital of France is the city of", add_bos=False, parse_special=False)
    rows = driver.feed(driver.create(), prompt)
    runner.close()
    tensors = ReadOnce(open_checkpoint(path, Remembered(tmp_path / "remembered.json")))
    expected = reference_logits(tensors, SMOLLM2, prompt, frequencies(SMOLLM2))
    np.testing.assert_allclose(rows, expected, atol=5e-3)
    # mlx-lm's own Llama takes this for the theta of a folder that keeps the right one under `rope_parameters`.
    wrong = replace(SMOLLM2, rope_theta=10_000.0)
    assert np.abs(reference_logits(tensors, wrong, prompt, frequencies(wrong)) - expected).max() > 0.5
