"""The runners that the suite is run on. A new runner adds a case."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from tests.support.models import find_model, why_no_llama
from workers.runners.base import ModelRunner, RunnerSpec
from workers.runners.registry import create_runner


@dataclass(frozen=True, slots=True)
class RunnerCase:
    """`spec` needs at least 4 sequences of 256 tokens and batches of 128. `slow_spec` makes a pass of 127 tokens last
    long enough to abort it. `cramped_spec` has room for fewer than 192 tokens in all, where that can be set.
    """

    name: str
    create: Callable[[], ModelRunner]
    spec: RunnerSpec
    slow_spec: RunnerSpec
    cramped_spec: RunnerSpec | None


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


CASES = [
    _echo("random"),
    _echo("repeat"),
    pytest.param(
        _llama_cpp(), marks=[pytest.mark.llama, pytest.mark.skipif(bool(why_no_llama()), reason=why_no_llama() or "")]
    ),
]
# Those whose room for all sequences together can be set below the sum of their lengths.
CRAMPED_CASES = [case for case in CASES if isinstance(case, RunnerCase) and case.cramped_spec is not None]
