"""Tensors that stay quantised."""

import re
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from tests.support.models import find_model, why_no_mlx

pytest.importorskip("mlx.core", reason="mlx is not installed; run: make setup PARTS=mlx")
pytest.importorskip("gguf", reason="gguf is not installed; run: make setup PARTS=mlx")

import gguf
import mlx.core as mx

from tests.workers.runners.mlx.feeding import Piece, feed, new_handle, tokens
from tests.workers.runners.mlx.reference import frequencies, reference_logits
from tests.workers.runners.mlx.small_models import LLAMA, RandomTensors, small_session
from workers.checkpoints import Checkpoint, open_checkpoint
from workers.checkpoints.gguf_names import hf_name
from workers.checkpoints.rotation_order import neighbours_to_halves
from workers.runners.base import FloatArray
from workers.runners.mlx.packed import read_packed
from workers.runners.remembered import Remembered

pytestmark = [pytest.mark.mlx, pytest.mark.skipif(bool(why_no_mlx()), reason=why_no_mlx() or "")]

CONFIG = replace(LLAMA, hidden_size=64, head_dim=16, intermediate_size=96, tie_word_embeddings=False)
GGUF_NAMES = [
    *(f"blk.{layer}.{part}.weight" for layer in range(CONFIG.num_layers) for part in (
        "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"
    )),
    "token_embd.weight", "output_norm.weight", "output.weight",
]  # fmt: skip
Kind = gguf.GGMLQuantizationType


def as_in_gguf(name: str, array: FloatArray) -> FloatArray:
    """Rows in the file's order."""
    heads = {"attn_q": CONFIG.num_heads, "attn_k": CONFIG.num_kv_heads}.get(name.split(".")[-2])
    if heads is None:
        return array
    order = neighbours_to_halves(np.arange(len(array)), heads)
    return array[np.argsort(order)]


class QuantisedTensors(RandomTensors):
    """In a file, and as what they stand for there."""

    def __init__(self, folder: Path, kinds: dict[str, Kind]) -> None:
        super().__init__(CONFIG)
        self.path = folder / "small.gguf"
        writer = gguf.GGUFWriter(self.path, "llama")
        for name in GGUF_NAMES:
            array = as_in_gguf(name, self._tensors[hf_name(name)])
            kind = next((kind for pattern, kind in kinds.items() if re.search(pattern, name)), Kind.F32)
            if array.ndim == 1 or kind is Kind.F32:
                writer.add_tensor(name, array)
                continue
            packed = gguf.quants.quantize(array, kind)
            writer.add_tensor(name, packed, raw_dtype=kind)
            restored = gguf.quants.dequantize(packed, kind)
            heads = {"attn_q": CONFIG.num_heads, "attn_k": CONFIG.num_kv_heads}.get(name.split(".")[-2])
            self._tensors[hf_name(name)] = restored if heads is None else neighbours_to_halves(restored, heads)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


@pytest.mark.parametrize(
    "kinds",
    [
        {"": Kind.Q4_1},
        {"token_embd|ffn_down": Kind.Q8_0, "": Kind.Q4_0},
        {"attn": Kind.F16, "output": Kind.BF16, "": Kind.Q8_0},
    ],
    ids=["q4_1", "q4_0 and q8_0", "some not quantised"],
)
def test_a_packed_model_equals_the_reference(tmp_path: Path, kinds: dict[str, Kind]) -> None:
    tensors, prompt = QuantisedTensors(tmp_path, kinds), tokens(30, seed=1)
    packed = read_packed(cast(Checkpoint, tensors), mx.float32)
    assert 0 < len(packed) <= 7 * CONFIG.num_layers + 2
    session = small_session(tensors, keep_packed=True)
    rows = feed(session, Piece(new_handle(session), prompt))[0]
    np.testing.assert_allclose(rows, reference_logits(tensors, CONFIG, prompt, frequencies(CONFIG)), atol=5e-3)


def test_a_file_that_mlx_does_not_read_is_widened(tmp_path: Path) -> None:
    tensors, prompt = QuantisedTensors(tmp_path, {"ffn_down": Kind.Q5_0, "": Kind.Q8_0}), tokens(30, seed=1)
    assert read_packed(cast(Checkpoint, tensors), mx.float32) == {}
    session = small_session(tensors, keep_packed=True)
    rows = feed(session, Piece(new_handle(session), prompt))[0]
    np.testing.assert_allclose(rows, reference_logits(tensors, CONFIG, prompt, frequencies(CONFIG)), atol=5e-3)


def test_the_real_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = find_model()
    assert path is not None
    checkpoint = open_checkpoint(path, Remembered(tmp_path / "remembered.json"))
    packed = read_packed(checkpoint, mx.float32)
    assert len(packed) == 7 * checkpoint.config.num_layers + 1
    for name in ("layers.0.self_attn.q_proj", "layers.29.self_attn.k_proj", "layers.7.mlp.down_proj", "embed_tokens"):
        tensor = packed[f"model.{name}"]
        widened = mx.dequantize(*tensor, group_size=32, bits=tensor.bits)
        np.testing.assert_allclose(np.asarray(widened), checkpoint.read(f"model.{name}.weight"), atol=1e-6)
    checkpoint.close()
