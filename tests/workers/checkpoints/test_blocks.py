"""Weights in blocks: what a GGUF file's numbers stand for, without a rounding."""

from pathlib import Path

import numpy as np
import pytest

from tests.workers.checkpoints.gguf_models import write_model
from workers.checkpoints import Checkpoint, open_checkpoint
from workers.checkpoints.blocks import BLOCK, blocks_of, joined

OUT, IN = 24, 512
# A super-block's two scales, in front of all else.
K_TYPES = {"Q4_K": 144, "Q5_K": 176}


def dequantised(kind: str, rows: np.ndarray) -> np.ndarray:
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    return dequantize(rows, GGMLQuantizationType[kind])


def quantised(kind: str, values: np.ndarray) -> np.ndarray:
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    return quantize(values, GGMLQuantizationType[kind])


@pytest.mark.parametrize(("kind", "bits"), [("Q4_0", 4), ("Q4_1", 4), ("Q5_0", 5), ("Q5_1", 5), ("Q8_0", 8)])
def test_they_are_the_files_weights(kind: str, bits: int) -> None:
    random = np.random.default_rng(1)
    values = random.normal(size=(OUT, IN)).astype(np.float32) * np.exp2(random.integers(-8, 6, (OUT, 1)))
    rows = quantised(kind, values.astype(np.float32))
    blocks = blocks_of(kind, rows)
    assert blocks is not None
    assert blocks.numbers.shape == (OUT, IN)
    assert blocks.scales.shape == blocks.minima.shape == (OUT, IN // BLOCK)
    assert blocks.bits == bits
    assert blocks.numbers.max() == 2**bits - 1
    np.testing.assert_allclose(
        blocks.dequantised(), dequantised(kind, rows), rtol=1e-6, atol=1e-6 * np.abs(values).max()
    )


@pytest.mark.parametrize("kind", K_TYPES)
def test_those_of_super_blocks_are_as_near_as_16_bits(kind: str) -> None:
    random = np.random.default_rng(2)
    rows = random.integers(0, 256, (OUT, IN // 256, K_TYPES[kind]), dtype=np.uint8)
    rows[:, :, :4] = random.uniform(0.001, 0.1, (OUT, IN // 256, 2)).astype(np.float16).view(np.uint8)
    rows = rows.reshape(OUT, -1)
    expected, blocks = dequantised(kind, rows), blocks_of(kind, rows)
    assert blocks is not None
    largest = np.abs(expected).reshape(OUT, -1, BLOCK).max(axis=2).repeat(BLOCK, axis=1)
    # Two roundings of products, of the scale and of the minimum, which partly cancel each other in the weight.
    limit = 2**-11 * (largest + 2 * blocks.minima.astype(np.float32).__abs__().repeat(BLOCK, axis=1))
    assert (np.abs(blocks.dequantised() - expected) <= limit).all()


def test_other_types_have_none() -> None:
    assert blocks_of("Q6_K", np.zeros((2, 210), np.uint8)) is None
    assert blocks_of("F16", np.zeros((2, 64), np.uint8)) is None


def test_a_minimum_beyond_16_bits_gives_none() -> None:
    rows = quantised("Q8_0", np.full((1, BLOCK), 1.0, np.float32))
    rows[:, :2] = np.array([1000.0], np.float16).view(np.uint8)
    assert blocks_of("Q8_0", rows) is None


def test_parts_are_joined_and_rows_chosen() -> None:
    parts = [blocks_of(kind, quantised(kind, np.eye(3, 64, dtype=np.float32))) for kind in ("Q4_0", "Q8_0")]
    whole = joined([part for part in parts if part is not None])
    assert whole.bits == 8
    order = np.array([5, 0, 3])
    np.testing.assert_array_equal(whole.rows(order).dequantised(), whole.dequantised()[order])


def test_a_matrix_is_the_same_in_blocks_as_it_is_read(tmp_path: Path) -> None:
    """With q and k in the order of halves."""
    path = write_model(tmp_path / "tiny.gguf", quantised={"attn_q": "Q4_1", "attn_k": "Q8_0", "ffn_up": "Q5_0"})
    checkpoint = open_checkpoint(path)
    names = [name for name in checkpoint.names() if checkpoint.read_blocks(name) is not None]
    assert {name.split(".", 3)[-1] for name in names} == {
        "self_attn.q_proj.weight",
        "self_attn.k_proj.weight",
        "mlp.up_proj.weight",
    }
    for name in names:
        blocks = checkpoint.read_blocks(name)
        assert blocks is not None
        np.testing.assert_allclose(blocks.dequantised(), checkpoint.read(name), rtol=1e-5, atol=1e-6)


def test_the_real_model_is_in_blocks(real: Checkpoint) -> None:
    for name in ("model.embed_tokens.weight", "model.layers.7.self_attn.q_proj.weight"):
        blocks = real.read_blocks(name)
        assert blocks is not None
        np.testing.assert_allclose(blocks.dequantised(), real.read(name), rtol=1e-5, atol=1e-6)
    assert real.read_blocks("model.norm.weight") is None
