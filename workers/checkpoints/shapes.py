"""The tensors that a model is made of."""

from pathlib import Path

from workers.checkpoints.model_config import ModelConfig
from workers.runners.base import RunnerError

Shape = tuple[int, ...]


def expected_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Every tensor of the model with its shape, in the order of computation."""
    hidden = config.hidden_size
    shapes: dict[str, Shape] = {"model.embed_tokens.weight": (config.vocab_size, hidden)}
    for layer in range(config.num_layers):
        for name, shape in _layer_shapes(config).items():
            shapes[f"model.layers.{layer}.{name}"] = shape
    shapes["model.norm.weight"] = (hidden,)
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, hidden)
    return shapes


def check_shapes(path: Path, config: ModelConfig, found: dict[str, Shape]) -> list[str]:
    """The names of the model's tensors. Raises RunnerError when one is missing, misshapen, or belongs to no such model:
    what is computed without it would be another model."""
    expected = expected_shapes(config)
    missing = [name for name in expected if name not in found]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise RunnerError(f"{path}: tensor {missing[0]}{more} is missing")
    for name, shape in expected.items():
        if found[name] != shape:
            raise RunnerError(f"{path}: tensor {name} has the shape {list(found[name])}, not {list(shape)}")
    for name in found:
        if name not in expected and not _is_harmless(name):
            raise RunnerError(f"{path}: tensor {name} is not part of a {config.architecture} model as supported here")
    return list(expected)


def _layer_shapes(config: ModelConfig) -> dict[str, Shape]:
    hidden, inner = config.hidden_size, config.intermediate_size
    q_size, kv_size = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    shapes: dict[str, Shape] = {"input_layernorm.weight": (hidden,)}
    for name, size in (("q_proj", q_size), ("k_proj", kv_size), ("v_proj", kv_size)):
        shapes[f"self_attn.{name}.weight"] = (size, hidden)
        if config.attention_bias:
            shapes[f"self_attn.{name}.bias"] = (size,)
    if config.qk_norm:
        shapes["self_attn.q_norm.weight"] = (config.head_dim,)
        shapes["self_attn.k_norm.weight"] = (config.head_dim,)
    shapes["self_attn.o_proj.weight"] = (hidden, q_size)
    shapes["post_attention_layernorm.weight"] = (hidden,)
    shapes["mlp.gate_proj.weight"] = (inner, hidden)
    shapes["mlp.up_proj.weight"] = (inner, hidden)
    shapes["mlp.down_proj.weight"] = (hidden, inner)
    return shapes


def _is_harmless(name: str) -> bool:
    """A head beside tied embeddings, and tables that follow from the configuration."""
    return name == "lm_head.weight" or name.endswith("rotary_emb.inv_freq")
