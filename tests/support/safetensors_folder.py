"""Models as folders with safetensors: the default one out of its GGUF file, and tiny ones with random weights.

Each is written once for a run of the suite, under a temporary folder that goes with the process.
"""

import json
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tests.support.models import find_model
from workers.checkpoints import Checkpoint, ModelConfig, open_checkpoint
from workers.checkpoints.bf16 import to_bf16
from workers.checkpoints.shapes import expected_shapes

Dtype = Literal["BF16", "F16", "F32"]
Tensors = Iterable[tuple[str, np.ndarray]]

_CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
_ENCODE: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "BF16": to_bf16,
    "F16": lambda values: values.astype(np.float16),
    "F32": lambda values: values,
}
_TINY_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_TINY_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def default_folder(dtype: Dtype = "BF16", shards: int = 1) -> Path:
    """The model of `find_model()`, dequantised. Not to be written to: other tests read it too."""
    return _default_folder(dtype, shards)


@cache
def _default_folder(dtype: Dtype, shards: int) -> Path:
    model = find_model()
    assert model is not None
    checkpoint = open_checkpoint(model)
    folder = _root() / f"default-{dtype}-{shards}"
    folder.mkdir()
    write_tensors(folder, ((name, checkpoint.read(name)) for name in checkpoint.names()), dtype, shards)
    write_json(folder / "config.json", config_json(checkpoint.config, eos_token_id=_eos_id(checkpoint)))
    write_tokenizer(folder, checkpoint)
    checkpoint.close()
    return folder


def tiny_folder(architecture: str = "llama", dtype: Dtype = "F32", shards: int = 1) -> Path:
    """Two layers of size 64 with random weights. Not to be written to: see `tiny_copy`."""
    return _tiny_folder(architecture, dtype, shards)


@cache
def _tiny_folder(architecture: str, dtype: Dtype, shards: int) -> Path:
    folder = _root() / f"tiny-{architecture}-{dtype}-{shards}"
    folder.mkdir()
    tokenizer = tiny_tokenizer()
    config = tiny_config(architecture, tokenizer.get_vocab_size())
    write_tensors(folder, random_tensors(config), dtype, shards)
    write_json(folder / "config.json", config_json(config, eos_token_id=2))
    (folder / "tokenizer.json").write_text(tokenizer.to_str(), encoding="utf-8")
    write_json(folder / "tokenizer_config.json", _tokenizer_config("<|im_start|>", "<|im_end|>", _TINY_TEMPLATE))
    return folder


def tiny_copy(folder: Path, architecture: str = "llama", dtype: Dtype = "F32", shards: int = 1) -> Path:
    """A copy of `tiny_folder` to spoil."""
    return Path(shutil.copytree(tiny_folder(architecture, dtype, shards), folder, dirs_exist_ok=True))


def tiny_config(architecture: str, vocab_size: int) -> ModelConfig:
    return ModelConfig(
        architecture=architecture,
        vocab_size=vocab_size,
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        # Qwen3's heads are not a share of the hidden size.
        head_dim=32 if architecture == "qwen3" else 16,
        intermediate_size=96,
        rms_norm_eps=1e-5,
        rope_theta=50_000.0,
        rope_scaling=None,
        tie_word_embeddings=architecture == "qwen3",
        attention_bias=architecture == "qwen2",
        qk_norm=architecture == "qwen3",
        sliding_window=None,
        max_positions=512,
    )


def random_tensors(config: ModelConfig, seed: int = 1) -> Tensors:
    """Of a size at which logits differ by some units: norms about 1, the rest as is usual at the start of training."""
    random = np.random.default_rng(seed)
    for name, shape in expected_shapes(config).items():
        values = random.normal(0, 1, shape)
        if name.endswith("norm.weight"):
            values = 1 + 0.1 * values
        elif name.endswith("bias"):
            values = 0.1 * values
        elif name != "model.embed_tokens.weight":
            values = values * (1.5 / np.sqrt(shape[-1]))
        yield name, values.astype(np.float32)


@cache
def tiny_tokenizer() -> Any:
    """Byte level, with a few words of English and three control tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in _TINY_SPECIALS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the capital of France is Paris, and the rain in Spain stays in the plain"], trainer)
    return tokenizer


def config_json(config: ModelConfig, **more: Any) -> dict[str, Any]:
    """As transformers 5 writes it. Only without rope scaling."""
    assert config.rope_scaling is None
    return {
        "architectures": [_CLASSES[config.architecture]],
        "model_type": config.architecture,
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
        **({"sliding_window": config.sliding_window} if config.architecture == "mistral" else {}),
        **more,
    }


def write_tensors(folder: Path, tensors: Tensors, dtype: Dtype, shards: int = 1) -> None:
    """One file, or as many as asked for and an index; tensors are dealt out in turn."""
    encode = _ENCODE[dtype]
    encoded = {name: encode(values) for name, values in tensors}
    if shards == 1:
        write_safetensors(folder / "model.safetensors", encoded, dtype)
        return
    weight_map: dict[str, str] = {}
    for place, name in enumerate(encoded):
        weight_map[name] = f"model-{place % shards + 1:05d}-of-{shards:05d}.safetensors"
    for shard in sorted(set(weight_map.values())):
        chosen = {name: values for name, values in encoded.items() if weight_map[name] == shard}
        write_safetensors(folder / shard, chosen, dtype)
    total_size = sum(values.nbytes for values in encoded.values())
    index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
    write_json(folder / "model.safetensors.index.json", index)


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], dtype: str) -> None:
    """`tensors` in the bits of `dtype`."""
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, values in tensors.items():
        table[name] = {"dtype": dtype, "shape": values.shape, "data_offsets": [offset, offset + values.nbytes]}
        offset += values.nbytes
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.writelines(np.ascontiguousarray(values).data for values in tensors.values())


def write_tokenizer(folder: Path, checkpoint: Checkpoint) -> None:
    (folder / "tokenizer.json").write_text(checkpoint.tokenizer.to_json(), encoding="utf-8")
    markers = _tokenizer_config(checkpoint.bos_token, checkpoint.eos_token, checkpoint.chat_template)
    write_json(folder / "tokenizer_config.json", markers)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")


def edit_json(path: Path, **changes: Any) -> None:
    """Set keys; None removes one."""
    value = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    write_json(path, {key: each for key, each in value.items() if each is not None})


def _tokenizer_config(bos_token: str, eos_token: str, chat_template: str | None) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos_token,
        "eos_token": eos_token,
        "chat_template": chat_template,
        "clean_up_tokenization_spaces": False,
    }


def _eos_id(checkpoint: Checkpoint) -> int:
    (token_id,) = checkpoint.tokenizer.encode(checkpoint.eos_token, add_bos=False, parse_special=True)
    return token_id


@cache
def _temporary() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="inferflux-models-")


def _root() -> Path:
    return Path(_temporary().name)
