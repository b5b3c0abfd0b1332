"""Rotations against transformers."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.safetensors_folder import tiny_config
from workers.checkpoints.fields import Fields
from workers.checkpoints.folder_rope import read_rope
from workers.checkpoints.rope import rotation

PARAMETERS: list[dict[str, Any]] = [
    {"rope_type": "default"},
    {"rope_type": "linear", "factor": 3.0},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    },
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "attention_factor": 0.8},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "mscale": 0.7, "mscale_all_dim": 1.2},
    {"rope_type": "yarn", "factor": 40.0, "beta_fast": 20.0, "beta_slow": 2.0, "truncate": False},
]


@pytest.mark.torch
@pytest.mark.parametrize("parameters", PARAMETERS, ids=lambda each: re.sub(r"\W+", "-", str(each)))
def test_frequencies_are_those_of_transformers(parameters: dict[str, Any]) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = {"rope_theta": 50_000.0, **parameters}
    values = {"rope_parameters": parameters, "max_position_embeddings": 512, "head_dim": 64}
    theirs = transformers.LlamaConfig(hidden_size=256, num_attention_heads=4, **values)
    if parameters["rope_type"] == "default":
        model = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(theirs)
        frequencies, amplitude = model.inv_freq, model.attention_scaling
    else:
        frequencies, amplitude = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](theirs, "cpu")

    theta, scaling = read_rope(Fields(Path("config.json"), values))
    config = replace(tiny_config("llama", 10), head_dim=64, rope_theta=theta, rope_scaling=scaling)
    ours = rotation(config)
    np.testing.assert_allclose(ours.frequencies, frequencies.numpy(), rtol=1e-5)
    assert ours.amplitude == pytest.approx(amplitude)
