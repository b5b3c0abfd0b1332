"""Rotary positions: what a model's configuration comes to."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from workers.checkpoints.model_config import (
    FactorScaling,
    LinearScaling,
    Llama3Scaling,
    ModelConfig,
    YarnScaling,
)


class Rotation(NamedTuple):
    """Radians per position for each pair of a head's halves, (head_dim / 2,); cosine and sine are times `amplitude`."""

    frequencies: npt.NDArray[np.float32]
    amplitude: float


def rotation(config: ModelConfig) -> Rotation:
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim
    base = config.rope_theta**-exponents
    amplitude = 1.0
    match config.rope_scaling:
        case None:
            scaled = base
        case LinearScaling(factor):
            scaled = base / factor
        case FactorScaling(factors):
            scaled = base / np.asarray(factors)
        case Llama3Scaling() as scaling:
            scaled = _llama3(base, scaling)
        case YarnScaling() as scaling:
            scaled = _yarn(base, scaling, config)
            amplitude = scaling.attention_factor or _yarn_amplitude(scaling.factor)
    return Rotation(scaled.astype(np.float32), amplitude)


def _llama3(base: npt.NDArray[np.float64], scaling: Llama3Scaling) -> npt.NDArray[np.float64]:
    # Turns within the context that the model was first trained on.
    turns = scaling.original_max_positions * base / (2 * math.pi)
    ramp = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = np.clip(ramp, 0, 1)
    return base * kept + base / scaling.factor * (1 - kept)


def _yarn(base: npt.NDArray[np.float64], scaling: YarnScaling, config: ModelConfig) -> npt.NDArray[np.float64]:
    def pair_with(turns: float) -> float:
        """The place of the pair that makes so many turns within the original context."""
        positions = scaling.original_max_positions / (turns * 2 * math.pi)
        return config.head_dim * math.log(positions) / (2 * math.log(config.rope_theta))

    low, high = pair_with(scaling.beta_fast), pair_with(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, config.head_dim - 1)
    ramp = (np.arange(config.head_dim // 2) - low) / max(high - low, 0.001)
    kept: npt.NDArray[np.float64] = 1 - np.clip(ramp, 0, 1)
    return base * kept + base / scaling.factor * (1 - kept)


def _yarn_amplitude(factor: float) -> float:
    return 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
