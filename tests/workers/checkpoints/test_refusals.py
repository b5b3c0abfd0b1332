"""What cannot be served says so in one line, with the file and the reason."""

import json
import os
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.safetensors_folder import edit_json, tiny_copy, write_safetensors
from tests.workers.checkpoints.gguf_models import write_model
from workers.checkpoints import open_checkpoint
from workers.runners.base import RunnerError

INDEX = "model.safetensors.index.json"
FP8 = {"quant_method": "fp8"}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0}


def refusal(path: Path, named: Path | None = None) -> str:
    with pytest.raises(RunnerError) as caught:
        open_checkpoint(path)
    text = str(caught.value)
    assert "\n" not in text
    assert str(named or path) in text
    return text


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3, 0.999])
def test_a_truncated_gguf_file(tmp_path: Path, share: float) -> None:
    path = write_model(tmp_path / "tiny.gguf")
    os.truncate(path, int(path.stat().st_size * share))
    assert "truncated" in refusal(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"general__architecture": "gemma3"}, "architecture 'gemma3' is not supported"),
        ({"general__architecture": ""}, "architecture None is not supported"),
        ({"arch__expert_count": 8}, "expert_count is 8"),
        ({"arch__block_count": 3}, "tensor model.layers.2.input_layernorm.weight and 8 more is missing"),
        ({"arch__block_count": 1}, "tensor model.layers.1.input_layernorm.weight is not part of"),
        ({"arch__feed_forward_length": 97}, r"mlp.gate_proj.weight has the shape \[96, 64\], not \[97, 64\]"),
        ({"arch__embedding_length": ""}, "llama.embedding_length is missing"),
        ({"arch__attention__key_length": 17}, "value_length differs"),
        ({"arch__rope__scaling__type": "longrope"}, "rope scaling 'longrope' is not supported"),
        ({"without": ("blk.1.ffn_up.weight",)}, "tensor model.layers.1.mlp.up_proj.weight is missing"),
        ({"without": ("token_embd.weight",)}, "token_embd.weight is missing"),
        ({"extra_tensors": {"blk.0.ffn_gate_inp.weight": np.ones((2, 64))}}, "ffn_gate_inp.weight is not part of"),
        ({"extra_tensors": {"rope_freqs.weight": np.ones(3)}}, "rope_freqs.weight is not 8 positive numbers"),
        ({"tokenizer__ggml__pre": "nobodys"}, "pre-tokenizer 'nobodys' is not supported"),
        ({"tokenizer__ggml__model": "t5"}, "tokenizer 't5' is not supported"),
        ({"tokenizer__ggml__tokens": ["a", "b"]}, "the tokenizer has 2 tokens, but the embedding 300 rows"),
        ({"tokenizer__ggml__tokens": ["a"] * 300}, "token 'a' is in the vocabulary twice"),
        ({"tokenizer__ggml__merges": ["x yz"]}, "does not fit together"),
        ({"tokenizer__ggml__merges": ["xyz"]}, "the merge 'xyz' is not a pair"),
        ({"tokenizer__ggml__eos_token_id": 300}, "eos_token_id is 300, which is no token"),
    ],
)
def test_a_gguf_file_that_does_not_fit(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    assert re.search(words, refusal(write_model(tmp_path / "tiny.gguf", **changes)))


def test_what_is_no_gguf_file(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    assert "No such file" in refusal(path)
    path.touch()
    assert "empty" in refusal(path)
    path.write_bytes(b"PK" * 100)
    assert "not a GGUF file" in refusal(path)
    path.write_bytes(b"GGUF" + struct.pack("<I", 1) + bytes(100))
    assert "version 1 is not supported" in refusal(path)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60) + bytes(100))
    assert "truncated" in refusal(path)


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("config.json", {"model_type": "gemma3"}, "architecture 'gemma3' is not supported"),
        ("config.json", {"architectures": ["LlamaForSequenceClassification"]}, "does not generate text"),
        ("config.json", {"quantization_config": FP8}, "weights quantised by fp8 are not supported"),
        ("config.json", {"quantization_config": {"quant_method": "gptq"}}, "quantised by gptq"),
        ("config.json", {"quantization": {"bits": 4}}, "quantised by mlx"),
        ("config.json", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("config.json", {"rope_parameters": DYNAMIC}, "rope scaling 'dynamic' is not supported"),
        ("config.json", {"rope_parameters": {"full_attention": {}}}, "differ by layer"),
        ("config.json", {"layer_types": ["linear_attention"] * 2}, "'linear_attention' are not supported"),
        ("config.json", {"hidden_size": None}, "hidden_size is missing"),
        ("config.json", {"hidden_size": "64"}, "hidden_size is '64'"),
        ("config.json", {"eos_token_id": 999}, "eos_token_id is 999, which is no token"),
        ("config.json", {"vocab_size": 200}, r"embed_tokens.weight has the shape \[300, 64\], not \[200, 64\]"),
        ("config.json", {"num_hidden_layers": 3}, "and 8 more is missing"),
        ("tokenizer.json", {"model": {"type": "Nobodys"}}, "not a tokenizer"),
        ("tokenizer.json", {"decoder": None}, "decoder none is not supported"),
    ],
)
def test_a_folder_that_does_not_fit(tmp_path: Path, file: str, changes: dict[str, Any], words: str) -> None:
    folder = tiny_copy(tmp_path)
    edit_json(folder / file, **changes)
    assert re.search(words, refusal(folder))


def _drop_shard(folder: Path) -> str:
    (folder / "model-00002-of-00003.safetensors").unlink()
    return "this shard, named by model.safetensors.index.json, is missing"


def _cut_shard(folder: Path) -> str:
    path = folder / "model-00002-of-00003.safetensors"
    os.truncate(path, path.stat().st_size - 1)
    return "model-00002-of-00003.safetensors: the file is truncated: it ends within tensor"


def _cut_header(folder: Path) -> str:
    os.truncate(folder / "model-00001-of-00003.safetensors", 100)
    return "model-00001-of-00003.safetensors: the file is truncated within its header"


def _cut_to_nothing(folder: Path) -> str:
    os.truncate(folder / "model-00001-of-00003.safetensors", 4)
    return "model-00001-of-00003.safetensors: the file is truncated"


def _spoil_header(folder: Path) -> str:
    path = folder / "model-00001-of-00003.safetensors"
    data = bytearray(path.read_bytes())
    data[8] = ord("[")
    path.write_bytes(data)
    return "not a safetensors file"


def _move_tensor(folder: Path) -> str:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["model.norm.weight"] = "model-00001-of-00003.safetensors"
    index["weight_map"]["lm_head.weight"] = "model-00001-of-00003.safetensors"
    (folder / INDEX).write_text(json.dumps(index))
    return "is not in this shard"


def _escape(folder: Path) -> str:
    edit_json(folder / INDEX, weight_map={"model.norm.weight": "../other.safetensors"})
    return "is no file of this folder"


def _other_type(folder: Path) -> str:
    (folder / INDEX).unlink()
    write_safetensors(folder / "model.safetensors", {"model.norm.weight": np.ones(64, np.uint8)}, "F8_E4M3")
    return "tensor model.norm.weight is of type F8_E4M3, which is not supported"


def _no_weights(folder: Path) -> str:
    (folder / INDEX).unlink()
    return "neither model.safetensors nor model.safetensors.index.json is there"


def _no_tokenizer(folder: Path) -> str:
    (folder / "tokenizer.json").unlink()
    return "tokenizer.json is missing"


def _no_config(folder: Path) -> str:
    (folder / "config.json").unlink()
    return "a folder without config.json is no model"


def _no_json(folder: Path) -> str:
    (folder / "config.json").write_text("{")
    return "config.json: not JSON"


SPOILERS = [
    *(_drop_shard, _cut_shard, _cut_header, _cut_to_nothing, _spoil_header, _move_tensor, _escape, _other_type),
    *(_no_weights, _no_tokenizer, _no_config, _no_json),
]


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__.strip("_"))
def test_a_folder_with_something_amiss(tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    folder = tiny_copy(tmp_path, shards=3)
    assert spoil(folder) in refusal(folder)


def test_another_models_tokenizer(tmp_path: Path) -> None:
    from tokenizers import AddedToken, Tokenizer

    folder = tiny_copy(tmp_path)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([AddedToken("<more>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    assert "the tokenizer has 301 tokens, but the embedding 300 rows" in refusal(folder)


def test_a_package_that_is_absent_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_copy(tmp_path)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(RunnerError, match=r"needs the package tokenizers .*; run: pip install"):
        open_checkpoint(folder)
