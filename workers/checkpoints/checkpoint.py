"""An opened model: configuration, tokenizer and weights."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from workers.checkpoints.blocks import Blocks
from workers.checkpoints.model_config import ModelConfig
from workers.checkpoints.vocabulary import Vocabulary

FloatArray = npt.NDArray[np.float32]
Bf16Array = npt.NDArray[np.uint16]


class Weights(Protocol):
    """Tensors by the names that a folder with safetensors uses. Arrays may be read-only views of the mapped file; they
    outlive `close`."""

    def names(self) -> list[str]: ...

    def read(self, name: str) -> FloatArray: ...

    def read_bf16(self, name: str) -> Bf16Array: ...

    def read_blocks(self, name: str) -> Blocks | None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Parts:
    """What a source is made of. `digest` hashes the whole content, or remembers it."""

    config: ModelConfig
    tokenizer: Vocabulary
    chat_template: str | None
    weights: Weights
    description: str
    digest: Callable[[], str]


class Checkpoint:
    """A model's files, opened and checked; tensors are read when they are asked for.

    Names and layouts are those of a folder with safetensors, whatever the source:
    `model.layers.0.self_attn.q_proj.weight` is [out, in], and q and k are in the order of rotation by halves. Safe
    from any thread.
    """

    def __init__(self, path: Path, parts: Parts) -> None:
        self.path = path
        self.config = parts.config
        self.tokenizer = parts.tokenizer
        self.chat_template = parts.chat_template
        self.bos_token = parts.tokenizer.bos_token
        self.eos_token = parts.tokenizer.eos_token
        self.max_token_bytes = parts.tokenizer.max_token_bytes
        self.description = parts.description
        self._weights = parts.weights
        self._digest = parts.digest

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over weights, tokenizer and chat template, in hex: a second per gigabyte or so, the first time."""
        return self._digest()

    def names(self) -> list[str]:
        """The tensors of the model, each of them there and of the right shape. With tied embeddings no `lm_head`."""
        return self._weights.names()

    def read(self, name: str) -> FloatArray:
        """A tensor in float32. Raises KeyError."""
        return self._weights.read(name)

    def read_bf16(self, name: str) -> Bf16Array:
        """A tensor as the bits of bfloat16, rounded to nearest even where the source is of another type."""
        return self._weights.read_bf16(name)

    def read_blocks(self, name: str) -> Blocks | None:
        """A matrix as the blocks that the source has it in; None where it has none such."""
        return self._weights.read_blocks(name)

    def close(self) -> None:
        """Let go of the files. Arrays that were read stay valid, and so does the tokenizer."""
        self._weights.close()
