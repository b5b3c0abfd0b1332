"""The same weights in transformers: what our numbers are held against."""

from pathlib import Path
from typing import Any

import torch

from workers.runners.base import FloatArray


def load_reference(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The model of a folder with safetensors, computed in `dtype`."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def reference_logits(model: Any, token_ids: list[int]) -> FloatArray:
    """After every token."""
    with torch.inference_mode():
        logits: FloatArray = model(torch.tensor([token_ids])).logits[0].float().numpy()
    return logits


def follows_greedily(model: Any, prompt: list[int], output: list[int]) -> bool:
    """Whether greedy decoding of the prompt gives this output: each token is the best after those before it."""
    rows = reference_logits(model, prompt + output[:-1])[len(prompt) - 1 :]
    return bool((rows.argmax(axis=1) == output).all())
