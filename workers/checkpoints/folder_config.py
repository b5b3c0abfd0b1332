"""A folder's `config.json` as ModelConfig."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workers.checkpoints.fields import Fields
from workers.checkpoints.folder_rope import read_rope
from workers.checkpoints.json_file import read_json
from workers.checkpoints.model_config import ARCHITECTURES, ModelConfig
from workers.runners.base import RunnerError

# What would make it another computation, and the values that do not.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "hidden_act": ("silu",),
    "mlp_bias": (False,),
    "is_encoder_decoder": (False,),
    "partial_rotary_factor": (1, None),
}
_LAYER_TYPES = {"full_attention", "sliding_attention"}


def read_folder_config(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> ModelConfig:
    """`path` is the file, `shapes` those of the tensors beside it. Raises RunnerError."""
    values = read_json(path)
    _check_quantisation(path, values)
    architecture = _architecture(path, values)
    fields = Fields(path, values)
    for key, neutral in _NEUTRAL.items():
        value = values.get(key, neutral[0])
        if value not in neutral:
            raise RunnerError(f"{path}: {key} is {value!r}, which is not supported")
    hidden_size, num_heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    theta, scaling = read_rope(fields)
    return ModelConfig(
        architecture=architecture,
        vocab_size=fields.count("vocab_size"),
        hidden_size=hidden_size,
        num_layers=fields.count("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=fields.count("num_key_value_heads", num_heads),
        head_dim=fields.count("head_dim", hidden_size // num_heads),
        intermediate_size=fields.count("intermediate_size"),
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope_theta=theta,
        rope_scaling=scaling,
        tie_word_embeddings=bool(values.get("tie_word_embeddings", "lm_head.weight" not in shapes)),
        attention_bias=bool(values.get("attention_bias", architecture == "qwen2")),
        qk_norm=architecture == "qwen3",
        sliding_window=_sliding_window(fields, architecture),
        max_positions=fields.count("max_position_embeddings"),
    )


def _check_quantisation(path: Path, values: Mapping[str, Any]) -> None:
    found = values.get("quantization_config") or values.get("quantization")
    if found:
        # MLX writes no method.
        method = found.get("quant_method", "mlx") if isinstance(found, dict) else found
        raise RunnerError(f"{path}: weights quantised by {method} are not supported (F32, F16 and BF16 are)")


def _architecture(path: Path, values: Mapping[str, Any]) -> str:
    model_type = values.get("model_type")
    if model_type not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise RunnerError(f"{path}: the architecture {model_type!r} is not supported (supported: {known})")
    classes = values.get("architectures") or []
    if classes and not any(str(name).endswith("ForCausalLM") for name in classes):
        raise RunnerError(f"{path}: a model of class {classes[0]} does not generate text")
    return str(model_type)


def _sliding_window(fields: Fields, architecture: str) -> int | None:
    layer_types = fields.optional("layer_types", None) or []
    unknown = set(layer_types) - _LAYER_TYPES
    if unknown:
        raise RunnerError(f"{fields.path}: layers of type {sorted(unknown)[0]!r} are not supported")
    if architecture == "llama":
        return None
    if architecture.startswith("qwen") and not fields.optional("use_sliding_window", False):
        return None
    if layer_types and "sliding_attention" not in layer_types:
        return None
    window = fields.count("sliding_window", 0)
    return window if 0 < window < fields.count("max_position_embeddings") else None
