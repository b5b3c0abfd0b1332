"""Cosines and sines of rotary positions."""

from typing import NamedTuple

import torch

from workers.checkpoints import ModelConfig
from workers.checkpoints.rope import rotation


class RopeTable(NamedTuple):
    """float32 [positions, head_dim / 2]. Dimension i of a head turns with dimension i + head_dim / 2."""

    cos: torch.Tensor
    sin: torch.Tensor


def rope_table(config: ModelConfig, num_positions: int, device: torch.device) -> RopeTable:
    frequencies, amplitude = rotation(config)
    angles = torch.outer(torch.arange(num_positions).float(), torch.from_numpy(frequencies))
    return RopeTable((angles.cos() * amplitude).to(device), (angles.sin() * amplitude).to(device))
