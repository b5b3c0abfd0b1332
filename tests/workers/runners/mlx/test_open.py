"""Opening a model, and what is refused."""

import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.models import find_model, why_no_mlx

pytest.importorskip("mlx.core", reason="mlx is not installed; run: make setup PARTS=mlx")

import mlx.core as mx

from tests.support.gguf import text_entry, written
from workers.runners.base import ForkKind, RunnerError, RunnerSpec
from workers.runners.mlx import loading
from workers.runners.mlx.runner import MlxRunner

pytestmark = [pytest.mark.mlx, pytest.mark.skipif(bool(why_no_mlx()), reason=why_no_mlx() or "")]

SPEC = RunnerSpec("model", str(find_model() or ""), context=64, sequences=2, batch_tokens=32)


def refused(spec: RunnerSpec) -> str:
    """The reason, which is one line."""
    with pytest.raises(RunnerError) as caught:
        MlxRunner().open(spec)
    reason = str(caught.value)
    assert "\n" not in reason
    return reason


def test_what_mlx_cannot_do_is_refused_by_name() -> None:
    assert (
        refused(replace(SPEC, threads=2))
        == "threads cannot be set on mlx, which decides that itself; remove the setting"
    )
    assert "gpu_layers is 7, but mlx" in refused(replace(SPEC, gpu_layers=7))
    assert refused(replace(SPEC, kv_type="q8_0")) == "kv_type 'q8_0' is not one of bf16, f32, f16"


def test_a_model_that_cannot_be_read_is_refused_by_its_file(tmp_path: Path) -> None:
    absent = tmp_path / "absent.gguf"
    assert str(absent) in refused(replace(SPEC, source=str(absent)))
    odd = written(tmp_path, text_entry("general.architecture", "mamba"))
    assert refused(replace(SPEC, source=str(odd))).startswith(f"{odd}: the architecture 'mamba' is not supported")


def test_weights_that_do_not_fit_the_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.runners.mlx.device.available_bytes", lambda: 100 * 2**20)
    assert refused(replace(SPEC, gpu_layers=0)).endswith("MiB of weights and 100 MiB of memory are available")


def test_a_model_that_computes_no_numbers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = loading.load_weights

    def break_it(model: object, *args: object, **kwargs: object) -> bool:
        result = loaded(model, *args, **kwargs)  # type: ignore[arg-type]
        model.model.norm.weight = model.model.norm.weight * mx.inf  # type: ignore[attr-defined]
        return result

    monkeypatch.setattr(loading, "load_weights", break_it)
    assert refused(SPEC) == "the trial step gave logits that are not numbers"


def test_an_open_runner_says_what_it_is() -> None:
    runner = MlxRunner()
    facts, capabilities = runner.open(SPEC)
    assert "MLX" in facts.description and "2 sequences of up to 64 tokens" in facts.description
    assert facts.chat_template and facts.bytes_per_token > 2
    assert (capabilities.max_running, capabilities.max_handles, capabilities.max_tokens_per_handle) == (2, 10, 64)
    assert (capabilities.max_batch_tokens, capabilities.max_logit_rows) == (32, 32)
    assert capabilities.fork is ForkKind.COPIED
    with pytest.raises(RunnerError, match="open already"):
        runner.open(SPEC)
    runner.close()
    runner.close()
    other, _ = runner.open(replace(SPEC, kv_type="f32", chat_template="{{ messages }}"))
    assert other.fingerprint != facts.fingerprint
    assert other.chat_template == "{{ messages }}"
    runner.close()
    with pytest.raises(RunnerError, match="not open"):
        runner.create()


def test_opening_leaves_the_process_as_it_is() -> None:
    """mlx-lm itself would lower the number of open files, and import transformers and what comes with that."""
    program = (
        "import resource, sys\n"
        "from workers.runners.base import RunnerSpec\n"
        "from workers.runners.mlx.runner import MlxRunner\n"
        f"MlxRunner().open(RunnerSpec('model', {SPEC.source!r}, context=64, sequences=2))\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE), 'transformers' in sys.modules, 'torch' in sys.modules)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == f"{resource.getrlimit(resource.RLIMIT_NOFILE)} False False"
    assert ended.stderr == ""
