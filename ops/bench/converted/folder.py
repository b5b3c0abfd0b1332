"""The same model as a folder with safetensors, which servers that know no GGUF read: weights rounded to BF16."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from ops.bench.converted.kept import kept
from ops.bench.weights import weights_format
from workers.checkpoints import Checkpoint, ModelConfig, open_checkpoint

_CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}


def as_folder(model: Path, folder: Path) -> Path:
    """Raises ArmUnavailable."""
    stem = model.stem.removesuffix(f".{weights_format(model)}")
    return kept(folder, model, f"{stem}-BF16", lambda path: _write(model, path))


def _write(model: Path, path: Path) -> None:
    checkpoint = open_checkpoint(model)
    try:
        if checkpoint.config.rope_scaling is not None:
            raise ValueError("its rope scaling has no one form there")
        path.mkdir()
        _write_json(path / "config.json", _config(checkpoint))
        (path / "tokenizer.json").write_text(checkpoint.tokenizer.to_json(), encoding="utf-8")
        _write_json(path / "tokenizer_config.json", _tokenizer_config(checkpoint))
        _write_weights(path / "model.safetensors", checkpoint)
    finally:
        checkpoint.close()


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    """As transformers 5 writes it."""
    config: ModelConfig = checkpoint.config
    window = {"sliding_window": config.sliding_window} if config.architecture == "mistral" else {}
    return {
        "architectures": [_CLASSES[config.architecture]],
        "model_type": config.architecture,
        "dtype": "bfloat16",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": {"rope_theta": config.rope_theta, "rope_type": "default"},
        "tie_word_embeddings": config.tie_word_embeddings,
        "max_position_embeddings": config.max_positions,
        "eos_token_id": checkpoint.tokenizer.encode(checkpoint.eos_token, add_bos=False, parse_special=True)[-1],
        **window,
    }


def _tokenizer_config(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": checkpoint.bos_token,
        "eos_token": checkpoint.eos_token,
        "chat_template": checkpoint.chat_template,
        "clean_up_tokenization_spaces": False,
    }


def _write_weights(path: Path, checkpoint: Checkpoint) -> None:
    """A table of contents in JSON, then the tensors in its order."""
    tensors = {name: checkpoint.read_bf16(name) for name in checkpoint.names()}
    contents: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, bits in tensors.items():
        start, end = end, end + bits.nbytes
        contents[name] = {"dtype": "BF16", "shape": bits.shape, "data_offsets": [start, end]}
    header = json.dumps(contents).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.writelines(np.ascontiguousarray(bits).data for bits in tensors.values())


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
