"""An mlx-lm model without weights."""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import mlx.nn as nn

from workers.checkpoints import ModelConfig
from workers.runners.base import RunnerError
from workers.runners.mlx.rope import set_rope

# mlx-lm's modules by architecture. Mistral is Llama there, too.
_MODULES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
_ALIAS = "_inferflux_mlx_lm_models"


def build_model(config: ModelConfig) -> nn.Module:
    """The model of a configuration. Raises RunnerError for one that mlx-lm has no model for."""
    if config.architecture not in _MODULES:
        raise RunnerError(f"{config.architecture} models do not run on mlx; known: {', '.join(_MODULES)}")
    module = _import_model(_MODULES[config.architecture])
    model: nn.Module = module.Model(module.ModelArgs.from_dict(_arguments(config)))
    set_rope(model, config)
    return model


def _arguments(config: ModelConfig) -> dict[str, Any]:
    return {
        "model_type": config.architecture,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_word_embeddings,
        "attention_bias": config.attention_bias,
        "max_position_embeddings": config.max_positions,
    }


def _import_model(name: str) -> Any:
    """One of mlx-lm's model modules, without mlx-lm itself.

    The package's `__init__` imports transformers, and with it PyTorch where that is installed, and lowers how many
    files the process may open. The models need neither, so their folder is imported as a package of its own.
    """
    if _ALIAS not in sys.modules:
        spec = find_spec("mlx_lm")
        if spec is None or not spec.submodule_search_locations:
            raise RunnerError("mlx_lm is not installed")
        package = ModuleType(_ALIAS)
        package.__path__ = [f"{folder}/models" for folder in spec.submodule_search_locations]
        sys.modules[_ALIAS] = package
    return import_module(f"{_ALIAS}.{name}")
