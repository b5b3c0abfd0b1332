"""Our own kernel: what it computes, that rows do not feel each other, and how it comes to be compiled."""

import argparse
import dataclasses
import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conformance.driver import MAX_MEAN_KL, Driver, Run, mean_kl
from tests.support.models import find_model, why_no_torch
from tests.support.safetensors_folder import (
    config_json,
    random_tensors,
    tiny_config,
    tiny_copy,
    tiny_tokenizer,
    write_json,
    write_tensors,
)
from tests.workers.checkpoints.gguf_models import write_model
from tests.workers.runners.torch.conftest import OpenModel, Report
from tests.workers.runners.torch.references import load_reference, reference_logits
from workers.runners.base import RunnerError

pytestmark = [pytest.mark.torch, pytest.mark.skipif(bool(why_no_torch()), reason=why_no_torch() or "")]


@pytest.fixture(scope="module", autouse=True)
def kernel() -> None:
    from workers.runners.torch.native.build import CannotBuild, kernel_library

    try:
        kernel_library()
    except CannotBuild as reason:
        pytest.skip(f"no kernel here: {reason}")


def model_folder(folder: Path, architecture: str, **changes: object) -> Path:
    tiny_copy(folder, architecture, "BF16")
    config = dataclasses.replace(tiny_config(architecture, tiny_tokenizer().get_vocab_size()), **changes)
    write_tensors(folder, random_tensors(config), "BF16")
    write_json(folder / "config.json", config_json(config, eos_token_id=2))
    return folder


def tokens(seed: int, count: int) -> list[int]:
    return np.random.default_rng(seed).integers(3, 250, count).tolist()


@pytest.mark.parametrize(
    ("architecture", "heads", "kv_heads", "head_dim"),
    [
        ("llama", 4, 4, 32),
        ("qwen2", 6, 2, 64),
        ("qwen3", 8, 1, 96),
        ("mistral", 7, 1, 128),
        ("qwen3", 2, 1, 256),
    ],
)
@pytest.mark.parametrize("kv_type", ["f16", "bf16"])
def test_it_computes_what_transformers_does(
    open_model: OpenModel, tmp_path: Path, architecture: str, heads: int, kv_heads: int, head_dim: int, kv_type: str
) -> None:
    """Every head size it was written for, with the architectures' biases and norms, and groups that fill no tile."""
    folder = model_folder(tmp_path / "model", architecture, num_heads=heads, num_kv_heads=kv_heads, head_dim=head_dim)
    driver = open_model(folder, context=256, sequences=2, kv_type=kv_type)
    assert "own kernel" in driver.facts.description
    token_ids = tokens(1, 150)
    here = driver.feed(driver.create(), token_ids, chunk=64)
    there = reference_logits(load_reference(folder), token_ids)[:, : here.shape[1]]
    theirs = reference_logits(load_reference(folder, torch.bfloat16), token_ids)[:, : here.shape[1]]
    assert mean_kl(there, here) <= MAX_MEAN_KL / 10
    # BF16 rounds what goes into every product, whoever computes; a wrong place for one value would be another order.
    assert np.abs(here - there).max() <= np.abs(theirs - there).max()
    assert np.abs(here - there).mean() <= np.abs(theirs - there).mean()


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim"), [(4, 4, 32), (6, 2, 64), (8, 1, 96), (7, 1, 128), (2, 1, 256)]
)
@pytest.mark.parametrize("threads", [1, 2])
def test_chunks_of_any_length_give_the_same(
    open_model: OpenModel, tmp_path: Path, heads: int, kv_heads: int, head_dim: int, threads: int
) -> None:
    """Few rows and many go through a layer, and their queries over pages, on different ways; and of the last layer only
    rows whose logits are wanted."""
    folder = model_folder(tmp_path / "model", "qwen3", num_heads=heads, num_kv_heads=kv_heads, head_dim=head_dim)
    driver = open_model(folder, context=256, sequences=3, threads=threads)
    prompt = tokens(21, 240)
    alone = driver.feed(driver.create(), prompt, chunk=1)
    for chunk in (2, 9, 47, 97, 128):
        handle = driver.create()
        np.testing.assert_array_equal(driver.feed(handle, prompt, chunk=chunk), alone)
        driver.runner.release(handle)
    one, other = driver.create(), driver.create()
    last = driver.forward(Run(one, prompt[:200]), Run(other, prompt[:50], all_logits=True))
    np.testing.assert_array_equal(last, np.concatenate([alone[199:200], alone[:50]]))
    np.testing.assert_array_equal(driver.forward(Run(one, prompt[200:])), alone[-1:])
    for handle in (one, other):
        driver.runner.release(handle)


# One type for all, then one that has blocks for some matrices of a layer only, and for parts of one.
IN_BLOCKS: dict[str, dict[str, str]] = {
    "Q4_0": {"": "Q4_0"},
    "Q4_1": {"": "Q4_1"},
    "Q5_1": {"": "Q5_1"},
    "Q8_0": {"": "Q8_0"},
    "mixed": {"ffn_up": "Q4_0", "ffn_gate": "Q8_0", "attn_output": "Q4_1", "attn_q": "Q4_1"},
}
# Rounding to 8 bits by blocks: 0.0053 with weights in Q8_0, and half as much again (`ops.bench.quality`).
MAX_KL_IN_BLOCKS = 0.008


def model_in_blocks(path: Path, quantised: dict[str, str]) -> Path:
    changes = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 32, "hidden_size": 128, "intermediate_size": 192}
    return write_model(path, quantised=quantised, config_changes=changes)


@pytest.fixture(scope="module", params=IN_BLOCKS)
def blocks_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_in_blocks(tmp_path_factory.mktemp("blocks") / "model.gguf", IN_BLOCKS[request.param])


def test_weights_in_blocks_are_computed_with_as_they_are(open_model: OpenModel, blocks_model: Path) -> None:
    """Only what goes into the products is rounded: no farther from FP32 than 8 bits allow, and much nearer in 16
    bits, which BF16 KV asks for."""
    token_ids = tokens(31, 150)
    rows = {}
    for kv_type, has_kernel in (("f32", False), ("f16", True), ("bf16", True)):
        driver = open_model(blocks_model, context=256, sequences=1, kv_type=kv_type, has_kernel=has_kernel)
        rows[kv_type] = driver.feed(driver.create(), token_ids, chunk=64)
    gaps = {kv_type: np.abs(rows[kv_type] - rows["f32"]) for kv_type in rows}
    span = float(np.ptp(rows["f32"]))
    # A wrong order, a scale or a minimum of another block come to a tenth of what logits span, and more.
    assert gaps["f16"].mean() < span / 200
    assert gaps["f16"].max() < span / 25
    assert gaps["bf16"].mean() < span / 500


def test_rows_of_blocks_do_not_feel_each_other(open_model: OpenModel, blocks_model: Path) -> None:
    """As few and many rows, alone and in company, in any chunks."""
    driver = open_model(blocks_model, context=256, sequences=20)
    prompt = tokens(32, 200)
    alone = driver.feed(driver.create(), prompt, chunk=1)
    for chunk in (2, 5, 6, 7, 13, 97, 128):
        handle = driver.create()
        np.testing.assert_array_equal(driver.feed(handle, prompt, chunk=chunk), alone)
        driver.runner.release(handle)
    others = [driver.create() for _ in range(13)]
    mine = driver.create()
    runs = [Run(other, tokens(number, 1 + number % 3)) for number, other in enumerate(others)]
    rows = driver.forward(*runs[:7], Run(mine, prompt[:99], all_logits=True), *runs[7:])
    np.testing.assert_array_equal(rows[7:106], alone[:99])
    for handle in (mine, *others):
        driver.runner.release(handle)


@pytest.mark.parametrize("kv_type", ["f16", "bf16"])
def test_widths_that_tiles_do_not_divide(open_model: OpenModel, tmp_path: Path, kv_type: str) -> None:
    """Of blocks and of 16 bits: rows that end within a tile of 64 numbers, and integers that are summed in blocks which
    do."""
    changes = {"num_heads": 5, "num_kv_heads": 1, "head_dim": 32, "hidden_size": 160, "intermediate_size": 1632}
    path = write_model(tmp_path / "model.gguf", quantised={"": "Q4_1"}, config_changes=changes)
    driver = open_model(path, context=256, sequences=2, kv_type=kv_type)
    assert "own kernel" in driver.facts.description
    prompt = tokens(33, 120)
    alone = driver.feed(driver.create(), prompt, chunk=1)
    for chunk in (6, 7, 16, 17, 33, 120):
        handle = driver.create()
        np.testing.assert_array_equal(driver.feed(handle, prompt, chunk=chunk), alone)
        driver.runner.release(handle)


def test_rows_that_are_no_numbers_stay_none_in_blocks(open_model: OpenModel, tmp_path: Path) -> None:
    """A norm that overflows: the trial step finds it."""
    huge = np.full(128, 3e38, np.float32)
    changes = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 32, "hidden_size": 128, "intermediate_size": 192}
    spoilt = {"blk.0.ffn_norm.weight": huge}
    path = write_model(tmp_path / "m.gguf", quantised={"": "Q4_1"}, config_changes=changes, extra_tensors=spoilt)
    with pytest.raises(RunnerError, match="not numbers"):
        open_model(path)


def test_the_real_model_in_blocks_passes_the_quality_gate(open_model: OpenModel, report: Report) -> None:
    source = find_model()
    assert source is not None
    exact = open_model(source, context=256, sequences=1, kv_type="f32", has_kernel=False)
    here = open_model(source, context=256, sequences=1)
    assert "blocks of 8 bits" in here.facts.description
    text = " ".join(inspect.getdoc(thing) or "" for thing in (argparse, inspect, json, pytest))[:2000]
    token_ids = here.facts.tokenizer.encode(text, add_bos=False, parse_special=False)[:250]
    kl = mean_kl(exact.feed(exact.create(), token_ids), here.feed(here.create(), token_ids))
    report("mean KL to FP32", f"{kl:.5f}")
    assert kl <= MAX_KL_IN_BLOCKS


@pytest.fixture(scope="module")
def driver(open_model: OpenModel, tmp_path_factory: pytest.TempPathFactory) -> Driver:
    folder = model_folder(tmp_path_factory.mktemp("model") / "model", "qwen2", num_heads=6, num_kv_heads=2, head_dim=64)
    return open_model(folder, context=256, sequences=40)


def test_numbers_of_any_size_are_rounded_alike(open_model: OpenModel, tmp_path: Path) -> None:
    """Rows of weights from tiny to huge, one of zeros, and a few weights that are most of their row: products stay as
    near as BF16's, and no sum overflows. Wider than a block, so that sums are of more than one."""
    folder = model_folder(tmp_path / "model", "llama", num_heads=2, head_dim=32, intermediate_size=1632)
    config = dataclasses.replace(
        tiny_config("llama", tiny_tokenizer().get_vocab_size()), num_heads=2, head_dim=32, intermediate_size=1632
    )
    random = np.random.default_rng(5)
    tensors = {}
    for name, values in random_tensors(config):
        if "gate_proj" in name:
            values[0] = 0
        if "up_proj" in name:
            values *= np.exp2(random.integers(-12, 5, len(values)))[:, None].astype(np.float32)
        if "down_proj" in name:
            values[:, :3] *= 30
        tensors[name] = values
    write_tensors(folder, tensors.items(), "BF16")
    driver = open_model(folder, context=256, sequences=2)
    token_ids = tokens(6, 100)
    here = driver.feed(driver.create(), token_ids)
    there = reference_logits(load_reference(folder), token_ids)[:, : here.shape[1]]
    theirs = reference_logits(load_reference(folder, torch.bfloat16), token_ids)[:, : here.shape[1]]
    assert np.abs(here - there).max() <= np.abs(theirs - there).max() / 2


def test_weights_that_are_no_numbers_are_found_by_the_trial_step(open_model: OpenModel, tmp_path: Path) -> None:
    folder = tiny_copy(tmp_path / "spoilt", "qwen3", "BF16")
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: -16 * 1024] + b"\xff" * 16 * 1024)
    with pytest.raises(RunnerError, match="not numbers"):
        open_model(folder)


def test_a_row_is_the_same_in_any_company(driver: Driver) -> None:
    """From 1 to 33 neighbours, of one token or of many, ahead and behind."""
    prompt = tokens(2, 77)
    alone = driver.feed(driver.create(), prompt, chunk=1)
    for num_others in (1, 2, 3, 5, 11, 12, 13, 33):
        mine = driver.create()
        others = [driver.create() for _ in range(num_others)]
        half = num_others // 2
        for start, end in ((0, 40), (40, 41), (41, 77)):
            runs = [Run(other, tokens(number, 1 + number % 4)) for number, other in enumerate(others)]
            rows = driver.forward(*runs[:half], Run(mine, prompt[start:end], all_logits=True), *runs[half:])
            np.testing.assert_array_equal(rows[half : half + end - start], alone[start:end])
        for handle in (mine, *others):
            driver.runner.release(handle)


def test_prompts_longer_than_go_through_a_layer_together_are_the_same(driver: Driver) -> None:
    """Several in one batch, cut anywhere; then what they left in KV."""
    prompts = [tokens(seed, count) for seed, count in ((11, 150), (12, 90), (13, 200))]
    alone = [driver.create() for _ in prompts]
    expected = [driver.feed(handle, prompt, chunk=50)[-1] for handle, prompt in zip(alone, prompts, strict=True)]
    together = [driver.create() for _ in prompts]
    rows = driver.forward(*(Run(handle, prompt) for handle, prompt in zip(together, prompts, strict=True)))
    np.testing.assert_array_equal(rows, np.stack(expected))
    following = [driver.forward(*(Run(handle, [7]) for handle in handles)) for handles in (alone, together)]
    np.testing.assert_array_equal(*following)
    for handle in (*alone, *together):
        driver.runner.release(handle)


def test_where_pages_lie_does_not_matter(driver: Driver) -> None:
    prompt = tokens(3, 120)
    expected = driver.feed(driver.create(), prompt)
    others = [driver.create() for _ in range(8)]
    mine = driver.create()
    got = []
    for start in range(0, 120, 8):
        got.append(driver.forward(Run(mine, prompt[start : start + 8], all_logits=True)))
        for other in others:
            driver.forward(Run(other, tokens(4, 5)))
    np.testing.assert_array_equal(np.concatenate(got), expected)
    for handle in (mine, *others):
        driver.runner.release(handle)


@pytest.mark.timeout(300)
def test_the_library_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.runners.torch.native import build

    compiled = []
    compile_ = build._compile
    monkeypatch.setattr(build, "_compile", lambda *given: (compiled.append(given), compile_(*given)))
    first = build.kernel_library(tmp_path)
    assert build.kernel_library(tmp_path) == first
    assert len(compiled) == 1
    assert list(tmp_path.iterdir()) == [first]


def test_another_source_compiler_or_processor_gets_its_own_library(monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.runners.machine import Processor
    from workers.runners.torch.native.build import _key

    one, other = Processor("one", frozenset({"avx2"})), Processor("one", frozenset({"avx2", "avx512f"}))
    assert len({_key("g++ 12", one), _key("g++ 13", one), _key("g++ 12", other)}) == 3
    assert _key("g++ 12", one) == _key("g++ 12", one)


def test_what_the_source_includes_counts_as_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.runners.machine import Processor
    from workers.runners.torch.native import build

    monkeypatch.setattr(build, "SOURCE", tmp_path / "step.cpp")
    build.SOURCE.write_text('#include "part.h"')
    keys = []
    for text in ("one", "other"):
        (tmp_path / "part.h").write_text(text)
        keys.append(build._key("g++", Processor("one", frozenset())))
    assert keys[0] != keys[1]


def test_what_does_not_compile_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.runners.torch.native import build

    source = tmp_path / "step.cpp"
    source.write_text("this is no C++;")
    monkeypatch.setattr(build, "SOURCE", source)
    with pytest.raises(build.CannotBuild, match=r"failed: .*error"):
        build.kernel_library(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_processor_without_the_instructions_gets_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.runners.machine import Processor
    from workers.runners.torch.native import build

    monkeypatch.setattr(build, "processor", lambda: Processor("old", frozenset({"avx", "f16c"})))
    with pytest.raises(build.CannotBuild, match="no avx2, fma"):
        build.kernel_library()
