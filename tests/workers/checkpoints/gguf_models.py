"""Tiny models as GGUF files, converted from the same tensors as the folders."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.safetensors_folder import random_tensors, tiny_config, tiny_tokenizer
from tests.workers.runners.llama_cpp.gguf_file import Quantised, Value, write_gguf
from workers.checkpoints import ModelConfig

_IN_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_NORMAL, _CONTROL = 1, 3


def write_model(
    path: Path,
    architecture: str = "llama",
    extra_tensors: dict[str, np.ndarray] | None = None,
    without: tuple[str, ...] = (),
    quantised: Mapping[str, str] | None = None,
    config_changes: Mapping[str, Any] | None = None,
    **overrides: Value,
) -> Path:
    """The tensors of `tiny_folder(architecture)`. `overrides` replace metadata, dots written as double underscores and
    `arch` for the architecture's name; an empty text removes the key. `without` names tensors to leave out. Matrices
    whose names end in a key of `quantised` are of that type."""
    config = dataclasses.replace(tiny_config(architecture, tiny_tokenizer().get_vocab_size()), **(config_changes or {}))
    named = {key.replace("__", ".").replace("arch.", f"{architecture}."): value for key, value in overrides.items()}
    metadata = {**_hyperparameters(config), **byte_level_metadata(), **named}
    metadata = {key: value for key, value in metadata.items() if not isinstance(value, str) or value}
    tensors = {gguf_name(name): _converted(config, name, values) for name, values in random_tensors(config)}
    tensors = {name: values for name, values in tensors.items() if name not in without}
    for name, values in tensors.items():
        kind = next((kind for end, kind in (quantised or {}).items() if name.endswith(f"{end}.weight")), None)
        if kind is not None and values.ndim == 2:
            tensors[name] = _quantised(values, kind)
    return write_gguf(path, metadata, tensors | (extra_tensors or {}))


def _quantised(values: np.ndarray, kind: str) -> Quantised:
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    type_id = GGMLQuantizationType[kind]
    return Quantised(values.shape, int(type_id), quantize(values.astype(np.float32), type_id))


def gguf_name(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if stem in _OUTSIDE:
        return f"{_OUTSIDE[stem]}.{kind}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{_IN_LAYER[rest]}.{kind}"


def byte_level_metadata(pre: str = "gpt-2") -> dict[str, Value]:
    """The tokenizer of the tiny folders."""
    description = json.loads(tiny_tokenizer().to_str())["model"]
    tokens = sorted(description["vocab"], key=description["vocab"].__getitem__)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [_CONTROL if token.startswith("<|") else _NORMAL for token in tokens],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in description["merges"]],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def _hyperparameters(config: ModelConfig) -> dict[str, Value]:
    values: dict[str, Value] = {
        "block_count": config.num_layers,
        "context_length": config.max_positions,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": config.rope_theta,
    }
    named: dict[str, Value] = {f"{config.architecture}.{key}": value for key, value in values.items()}
    return {"general.architecture": config.architecture, "general.name": "Tiny", "general.file_type": 0, **named}


def _converted(config: ModelConfig, name: str, values: np.ndarray) -> np.ndarray:
    """Llama's rotation in GGUF pairs neighbours: the halves of each head are interleaved."""
    if config.architecture != "llama" or not ("q_proj" in name or "k_proj" in name):
        return values
    heads = values.reshape(-1, config.head_dim, *values.shape[1:])
    interleaved = np.empty_like(heads)
    interleaved[:, 0::2], interleaved[:, 1::2] = np.split(heads, 2, axis=1)
    return interleaved.reshape(values.shape)
