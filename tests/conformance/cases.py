"""The runners that the suite is run on. A new runner adds a case."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from tests.support.counts import full_or
from tests.support.models import find_model, why_no_llama, why_no_mlx, why_no_torch
from workers.runners.base import ModelRunner, RunnerSpec
from workers.runners.registry import create_runner


@dataclass(frozen=True, slots=True)
class RunnerCase:
    """`spec` needs at least 4 sequences of 256 tokens and batches of 128. `slow_spec` makes a pass of 127 tokens last
    long enough to abort it. `cramped_spec` has room for fewer than 192 tokens in all, where that can be set.
    `prefix_words` and `num_sharing`: so many words do so many requests at once have in common.
    A slow runner is fed prompts of `prompt_tokens` instead, from 12 on, and `stays_open` from one test to the next.
    """

    name: str
    create: Callable[[], ModelRunner]
    spec: RunnerSpec
    slow_spec: RunnerSpec
    cramped_spec: RunnerSpec | None
    prefix_words: int = 300
    num_sharing: int = 16
    prompt_tokens: int = 60
    stays_open: bool = False


def _echo(mode: str) -> RunnerCase:
    spec = RunnerSpec("echo", f"echo:{mode}", context=256, sequences=4, batch_tokens=128)
    return RunnerCase(
        name=f"echo-{mode}",
        create=lambda: create_runner("echo"),
        spec=spec,
        slow_spec=replace(spec, source=f"{spec.source}?prefill_rate=10"),
        cramped_spec=replace(spec, source=f"{spec.source}?kv_tokens=150"),
    )


def _llama_cpp() -> RunnerCase:
    spec = RunnerSpec(
        "model", str(find_model() or ""), context=256, sequences=4, batch_tokens=128, threads=1, gpu_layers=0
    )
    return RunnerCase(
        name="llama_cpp", create=lambda: create_runner("llama_cpp"), spec=spec, slow_spec=spec, cramped_spec=None
    )


def _mlx() -> RunnerCase:
    """On a processor a token takes 50 ms."""
    spec = RunnerSpec("model", str(find_model() or ""), context=256, sequences=4, batch_tokens=128)
    return RunnerCase(
        name="mlx",
        create=lambda: create_runner("mlx"),
        spec=spec,
        slow_spec=spec,
        cramped_spec=None,
        prefix_words=full_or(300, reduced=40),
        num_sharing=full_or(16, reduced=4),
        prompt_tokens=full_or(60, reduced=12),
        stays_open=True,
    )


def _torch(precision: str) -> RunnerCase:
    spec = RunnerSpec(
        "model",
        str(find_model() or ""),
        context=256,
        sequences=4,
        batch_tokens=128,
        threads=1,
        gpu_layers=0,
        kv_type=precision,
    )
    return RunnerCase(
        name=f"torch-{precision}",
        create=lambda: create_runner("torch"),
        spec=spec,
        slow_spec=spec,
        cramped_spec=replace(spec, context=160, kv_pages=11),
    )


_TORCH_MARKS = [pytest.mark.torch, pytest.mark.skipif(bool(why_no_torch()), reason=why_no_torch() or "")]

CASES = [
    pytest.param(_echo("random")),
    pytest.param(_echo("repeat")),
    pytest.param(
        _llama_cpp(), marks=[pytest.mark.llama, pytest.mark.skipif(bool(why_no_llama()), reason=why_no_llama() or "")]
    ),
    pytest.param(
        _mlx(),
        marks=[
            pytest.mark.mlx,
            pytest.mark.timeout(240),
            pytest.mark.skipif(bool(why_no_mlx()), reason=why_no_mlx() or ""),
        ],
    ),
    pytest.param(_torch("f32"), marks=_TORCH_MARKS),
    pytest.param(_torch("f16"), marks=_TORCH_MARKS),
    pytest.param(_torch("bf16"), marks=_TORCH_MARKS),
]
# Those whose room for all sequences together can be set below the sum of their lengths.
CRAMPED_CASES = [case for case in CASES if case.values[0].cramped_spec is not None]
