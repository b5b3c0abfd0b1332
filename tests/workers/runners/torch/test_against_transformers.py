"""Our numbers beside those of transformers, on the same weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conformance.driver import MAX_MEAN_KL, Driver, Run, mean_kl
from tests.support.counts import full_or
from tests.support.models import why_no_torch
from tests.support.safetensors_folder import default_folder, tiny_folder
from tests.workers.runners.torch.conftest import OpenModel, Report
from tests.workers.runners.torch.references import follows_greedily, load_reference, reference_logits

pytestmark = [pytest.mark.torch, pytest.mark.skipif(bool(why_no_torch()), reason=why_no_torch() or "")]

MAX_GAP_F32 = 1e-3
# Of any logit after any token, in the kernel as it computes by default.
MAX_GAP_KERNEL = 0.25
# Of the farthest logit after half of the prompts, in PyTorch's operations.
MAX_MEDIAN_GAP_EAGER = 0.3
NUM_GENERATED = full_or(64, reduced=16)
NUM_TOKENS = 64
NUM_TEXTS = full_or(20, reduced=5)
PROMPTS = (
    "The history of the printing press begins",
    "Once upon a time, in a village by the sea,",
    "To bake a loaf of bread you need",
    "The three largest cities of Japan are",
    "def fibonacci(n):",
    "Water boils at a temperature of",
    "Dear Sir or Madam, I am writing to",
    "The difference between a virus and a bacterium is",
    "In 1969 the first human",
    "My favourite season is autumn because",
    "A list of prime numbers: 2, 3, 5, 7,",
    "Photosynthesis is the process by which",
    "The opposite of hot is",
    "Once the war was over, the soldiers",
    "An algorithm is",
    "The recipe calls for two eggs and",
    "To be, or not to be,",
    "The moon orbits the Earth every",
    "She opened the door and saw",
    "SELECT name FROM users WHERE",
)


@pytest.fixture(scope="module")
def folder() -> Path:
    return default_folder()


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    return load_reference(folder)


def encode(driver: Driver, text: str) -> list[int]:
    tokenizer = driver.facts.tokenizer
    return tokenizer.encode(text, add_bos=tokenizer.bos_id is not None, parse_special=False)


def fresh(driver: Driver, token_ids: list[int]) -> np.ndarray:
    handle = driver.create()
    logits = driver.feed(handle, token_ids)
    driver.runner.release(handle)
    return logits


@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen2", "qwen3"])
def test_each_architecture_is_computed_as_transformers_does(open_model: OpenModel, architecture: str) -> None:
    driver = open_model(tiny_folder(architecture), context=128, sequences=2, kv_type="f32")
    token_ids = (encode(driver, "the rain in Spain stays in the plain") * 6)[:90]
    expected = reference_logits(load_reference(tiny_folder(architecture)), token_ids)
    assert np.abs(fresh(driver, token_ids) - expected[:, : driver.facts.tokenizer.vocab_size]).max() <= MAX_GAP_F32


def test_float32_gives_the_same_logits(open_model: OpenModel, folder: Path, reference: Any) -> None:
    driver = open_model(folder, context=256, sequences=2, kv_type="f32")
    token_ids = [token_id for prompt in PROMPTS for token_id in encode(driver, prompt)][:200]
    assert np.abs(fresh(driver, token_ids) - reference_logits(reference, token_ids)).max() <= MAX_GAP_F32


@pytest.mark.timeout(300)
def test_float32_goes_on_with_the_same_text(open_model: OpenModel, folder: Path, reference: Any) -> None:
    """All prompts in one batch."""
    driver = open_model(folder, context=256, sequences=NUM_TEXTS, kv_type="f32")
    prompts = [encode(driver, prompt) for prompt in PROMPTS[:NUM_TEXTS]]
    handles = [driver.create() for _ in prompts]
    logits = driver.forward(*(Run(handle, prompt) for handle, prompt in zip(handles, prompts, strict=True)))
    outputs: list[list[int]] = [[] for _ in prompts]
    for _ in range(NUM_TOKENS):
        for output, row in zip(outputs, logits, strict=True):
            output.append(int(row.argmax()))
        logits = driver.forward(*(Run(h, output[-1:]) for h, output in zip(handles, outputs, strict=True)))
    assert all(follows_greedily(reference, *pair) for pair in zip(prompts, outputs, strict=True))


@pytest.fixture(scope="module")
def theirs_in_bf16(folder: Path) -> Any:
    import torch

    return load_reference(folder, torch.bfloat16)


@pytest.mark.parametrize("has_kernel", [True, False], ids=["kernel", "eager"])
def test_bfloat16_is_no_farther_from_float32_than_theirs(
    open_model: OpenModel, folder: Path, reference: Any, theirs_in_bf16: Any, report: Report, has_kernel: bool
) -> None:
    """PyTorch's operations round all that goes through them to BF16, our kernel only keys and values."""
    driver = open_model(folder, context=256, sequences=2, kv_type="bf16", has_kernel=has_kernel)
    prompts = [encode(driver, prompt) for prompt in PROMPTS]
    exact = np.concatenate([reference_logits(reference, prompt) for prompt in prompts])
    ours = np.concatenate([fresh(driver, prompt) for prompt in prompts])
    theirs = np.concatenate([reference_logits(theirs_in_bf16, prompt) for prompt in prompts])
    last = np.cumsum([len(prompt) for prompt in prompts]) - 1
    for name, rows in (("ours", ours), ("transformers", theirs)):
        gaps, nexts = np.abs(rows - exact).max(axis=1), np.abs(rows - exact).max(axis=1)[last]
        report(f"{name}: farthest logit after a prompt", f"max {nexts.max():.3f}, median {np.median(nexts):.3f}")
        report(f"{name}: farthest logit after any token", f"max {gaps.max():.3f}, median {np.median(gaps):.3f}")
        report(f"{name}: mean KL", f"{mean_kl(exact, rows):.5f}")
    assert mean_kl(exact, ours) <= mean_kl(exact, theirs) * (0.75 if has_kernel else 1.25)
    assert mean_kl(exact, ours) <= MAX_MEAN_KL / 10
    after_prompts = np.abs(ours - exact).max(axis=1)[last]
    if has_kernel:
        # Even with KV in BF16.
        assert after_prompts.max() <= MAX_GAP_KERNEL
    else:
        assert np.median(after_prompts) <= MAX_MEDIAN_GAP_EAGER


def test_the_kernel_stays_near_float32_at_every_token(
    open_model: OpenModel, folder: Path, reference: Any, report: Report
) -> None:
    """All prompts in one batch, then their greedy continuations: every logit of every row beside transformers'."""
    from workers.runners.torch.native.build import CannotBuild, kernel_library

    try:
        kernel_library()
    except CannotBuild as reason:
        pytest.skip(f"no kernel here: {reason}")
    driver = open_model(folder, context=256, sequences=len(PROMPTS), kv_type="f16", batch_tokens=512)
    assert "own kernel" in driver.facts.description
    prompts = [encode(driver, prompt) for prompt in PROMPTS]
    handles = [driver.create() for _ in prompts]
    rows = driver.forward(*(Run(handle, prompt) for handle, prompt in zip(handles, prompts, strict=True)))
    steps, outputs = [rows], [[int(row.argmax())] for row in rows]
    for _ in range(NUM_GENERATED - 1):
        rows = driver.forward(*(Run(h, output[-1:]) for h, output in zip(handles, outputs, strict=True)))
        steps.append(rows)
        for output, row in zip(outputs, rows, strict=True):
            output.append(int(row.argmax()))
    gaps = np.zeros((NUM_GENERATED, len(prompts)))
    for number, (prompt, output) in enumerate(zip(prompts, outputs, strict=True)):
        exact = reference_logits(reference, prompt + output[:-1])[len(prompt) - 1 :]
        gaps[:, number] = np.abs(np.stack([step[number] for step in steps]) - exact).max(axis=1)
    report("farthest logit after a prompt", f"max {gaps[0].max():.3f}, median {np.median(gaps[0]):.3f}")
    report("farthest logit after any token", f"max {gaps.max():.3f}, median {np.median(gaps):.3f}")
    assert gaps.max() <= MAX_GAP_KERNEL
