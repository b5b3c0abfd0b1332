"""What a model is opened with, and what is refused."""

import logging
from pathlib import Path

import pytest

from tests.conformance.driver import MAX_MEAN_KL, mean_kl
from tests.support.models import why_no_torch
from tests.support.safetensors_folder import tiny_copy, tiny_folder
from tests.workers.runners.torch.conftest import OpenModel
from workers.runners.base import RunnerError, RunnerSpec

pytestmark = [pytest.mark.torch, pytest.mark.skipif(bool(why_no_torch()), reason=why_no_torch() or "")]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"threads": 0}, "threads must be at least 1"),
        ({"batch_tokens": 0}, "batch_tokens must be at least 1"),
        ({"sequences": 0}, "sequences must be at least 1"),
        ({"context": 513}, "context must be from 1 to 512"),
        ({"context": 0}, "context must be from 1 to 512"),
        ({"kv_type": "q8_0"}, "kv_type 'q8_0' is not one of f32, f16, bf16"),
        ({"context": 512, "kv_pages": 31}, "set runtime.paged_kv.cpu_pages to 32 or more"),
        ({"kv_pages": 10**12}, "of memory and"),
        ({"gpu_layers": 1}, "gpu_layers is 1"),
        ({"source": "/nowhere/model.gguf"}, "/nowhere/model.gguf"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(open_model: OpenModel, wrong: dict[str, object], reason: str) -> None:
    from workers.runners.torch.device import _gpu

    if "gpu_layers" in wrong and _gpu() is not None:
        pytest.skip("there is a GPU")
    source = Path(str(wrong.pop("source", tiny_folder())))
    with pytest.raises(RunnerError) as refusal:
        open_model(source, **wrong)
    assert reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_truncated_weights_are_refused_in_a_line(open_model: OpenModel, tmp_path: Path) -> None:
    folder = tiny_copy(tmp_path / "short")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(RunnerError, match=r"model\.safetensors") as refusal:
        open_model(folder)
    assert "\n" not in str(refusal.value)


def test_weights_that_are_no_numbers_are_found_by_the_trial_step(open_model: OpenModel, tmp_path: Path) -> None:
    folder = tiny_copy(tmp_path / "spoilt")
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: -64 * 1024] + b"\xff" * 64 * 1024)
    with pytest.raises(RunnerError, match="not numbers"):
        open_model(folder, kv_type="f32")


def test_pages_are_as_many_as_asked_for_and_bound_what_fits(open_model: OpenModel) -> None:
    driver = open_model(tiny_folder(), context=128, sequences=4, kv_pages=9)
    assert driver.capabilities.kv_token_budget == 9 * 16
    assert driver.capabilities.page_size == 16
    assert driver.capabilities.max_running == 4


def test_by_default_every_sequence_has_room(open_model: OpenModel) -> None:
    driver = open_model(tiny_folder(), context=120, sequences=4)
    assert driver.capabilities.kv_token_budget == 4 * 128
    assert driver.capabilities.max_handles > 4


def test_a_runner_opens_once_and_anew_after_close() -> None:
    from workers.runners.torch.runner import TorchRunner

    runner, spec = TorchRunner(), RunnerSpec("model", str(tiny_folder()), context=64, sequences=1, threads=1)
    first = runner.open(spec)
    with pytest.raises(RunnerError, match="open already"):
        runner.open(spec)
    runner.close()
    runner.close()
    with pytest.raises(RunnerError, match="not open"):
        runner.create()
    assert runner.open(spec).facts.fingerprint == first.facts.fingerprint
    runner.close()


def test_the_fingerprint_tells_weights_template_and_precision_apart(open_model: OpenModel) -> None:
    specs: list[tuple[Path, dict[str, object]]] = [
        (tiny_folder(), {"kv_type": "f32"}),
        (tiny_folder(), {"kv_type": "f16"}),
        (tiny_folder(), {"kv_type": "bf16"}),
        (tiny_folder("qwen2"), {"kv_type": "f32"}),
        (tiny_folder(), {"kv_type": "f32", "chat_template": "{{ messages }}"}),
    ]
    prints = [open_model(source, context=64, sequences=1, **more).facts.fingerprint for source, more in specs]
    assert len(set(prints)) == len(prints)
    assert all(len(text) == 32 for text in prints)


@pytest.mark.parametrize("has_kernel", [True, False], ids=["kernel", "eager"])
@pytest.mark.parametrize("kv_type", ["f32", "f16", "bf16"])
def test_kv_is_of_the_type_asked_for(open_model: OpenModel, kv_type: str, has_kernel: bool) -> None:
    driver = open_model(tiny_folder("qwen3"), context=64, sequences=1, kv_type=kv_type, has_kernel=has_kernel)
    session = driver.runner._open_session()  # type: ignore[attr-defined]
    assert str(session._memory.keys.dtype) == {"f32": "torch.float32", "f16": "torch.float16"}.get(
        kv_type, "torch.bfloat16"
    )
    assert f"paged {kv_type} KV" in driver.facts.description
    assert kv_type in driver.capabilities.kv_format.split()
    logits = driver.feed(driver.create(), [5, 6, 7, 8] * 10, chunk=7)
    exact_driver = open_model(tiny_folder("qwen3"), context=64, sequences=1, kv_type="f32", has_kernel=False)
    exact = exact_driver.feed(exact_driver.create(), [5, 6, 7, 8] * 10)
    assert mean_kl(exact, logits) <= MAX_MEAN_KL


def test_without_a_compiler_pytorch_computes_and_the_reason_is_said(
    open_model: OpenModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from workers.runners.torch.native.build import CannotBuild

    def no_library() -> Path:
        raise CannotBuild("there is no g++")

    monkeypatch.setattr("workers.runners.torch.native.decoder.kernel_library", no_library)
    with caplog.at_level(logging.WARNING):
        driver = open_model(tiny_folder("qwen3"), context=64, sequences=1, kv_type="bf16")
    assert "there is no g++" in caplog.text
    assert "eager" in driver.facts.description
    assert not driver.capabilities.exact_batching
