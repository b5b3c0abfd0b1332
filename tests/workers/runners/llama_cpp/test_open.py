"""What a spec can say, what a model says about itself, and the one line that says why one does not load."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.workers.runners.llama_cpp.conftest import OpenModel, by_default
from tests.workers.runners.llama_cpp.driver import Driver, Feed
from tests.workers.runners.llama_cpp.gguf_file import write_gguf, write_tiny_model
from workers.runners.base import RunnerError, RunnerSpec
from workers.runners.llama_cpp.kv_types import KV_TYPES
from workers.runners.llama_cpp.runner import LlamaCppRunner

pytestmark = pytest.mark.llama


@pytest.fixture
def refuse(cache_file: Path, llama_cpp_installed: None):
    """Opens a model that must not load; the reason, which is one line and leaves the runner closed."""

    def refuse_(path: Path, **spec: object) -> str:
        runner = LlamaCppRunner(cache_file=cache_file, tune=by_default)
        with pytest.raises(RunnerError) as caught:
            runner.open(RunnerSpec("model", str(path), **{"context": 256, "sequences": 1, "threads": 1, **spec}))
        with pytest.raises(RunnerError, match="not open"):
            runner.create()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refuse_


def test_a_file_that_is_not_there(refuse, tmp_path: Path) -> None:
    assert "No such file" in refuse(tmp_path / "absent.gguf")


def test_a_folder(refuse, tmp_path: Path) -> None:
    assert "folder" in refuse(tmp_path)


@pytest.mark.parametrize("content", [b"", b"GG", b"PK\x03\x04 something else"])
def test_a_file_that_is_not_gguf(refuse, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(content)
    assert "not a GGUF file" in refuse(path)


@pytest.mark.parametrize("kept", [30, 3000])
def test_a_file_cut_in_its_head(refuse, tiny_model: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny_model.read_bytes()[:kept])
    assert "cut.gguf does not load: " in refuse(path)


def test_a_file_cut_in_its_weights(refuse, tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny_model.read_bytes()[:-5000])
    assert "not within the file bounds" in refuse(path)


def test_a_part_that_is_missing(refuse, tiny_model: Path, tmp_path: Path) -> None:
    first = Path(shutil.copy(tiny_model, tmp_path / "big-00001-of-00002.gguf"))
    assert "big-00002-of-00002.gguf: No such file" in refuse(first)


def test_an_unknown_architecture(refuse, tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "strange.gguf", general__architecture="strange")
    assert "unknown model architecture: 'strange'" in refuse(path)


def test_a_file_without_weights(refuse, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "empty.gguf", {"general.architecture": "llama"}, {"x": np.zeros(4)})
    assert "empty.gguf does not load: " in refuse(path)


def test_too_little_memory_for_the_weights(refuse, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.runners.llama_cpp.loading.available_bytes", lambda: 1000)
    assert "memory are available" in refuse(tiny_model)


def test_too_little_memory_for_the_context(refuse, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.runners.llama_cpp.loading.available_bytes", lambda: 2**20)
    reason = refuse(tiny_model, context=100_000)
    assert "a context of 100000 tokens" in reason
    assert "kv_type" in reason


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"kv_type": "q9_9"}, "kv_type 'q9_9' is not one of f32, f16"),
        ({"sequences": 257}, "sequences must be from 1 to 256"),
        ({"sequences": 0}, "sequences must be from 1 to 256"),
        ({"context": 0}, "context must be at least 1"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"batch_tokens": 0}, "batch_tokens must be at least 1"),
        ({"chat_template": "/no/such/file.jinja"}, "neither a Jinja template nor a readable file"),
    ],
)
def test_a_setting_that_cannot_be(refuse, tiny_model: Path, spec: dict[str, object], reason: str) -> None:
    assert reason in refuse(tiny_model, **spec)


def test_layers_for_a_gpu_that_the_build_does_not_know(
    refuse, tiny_model: Path, opened_tiny: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.runners.llama_cpp.library.Library.can_offload", False)
    assert "built without GPU support" in refuse(tiny_model, gpu_layers=4)


def test_what_was_asked_for_is_what_there_is(open_model: OpenModel, tiny_model: Path) -> None:
    driver = open_model(tiny_model, context=300, sequences=3, threads=1, batch_tokens=40, kv_type="q8_0", gpu_layers=0)
    capabilities = driver.capabilities
    assert capabilities.max_tokens_per_handle == 300
    assert capabilities.max_handles == 3
    assert capabilities.max_batch_tokens == 40
    assert capabilities.max_logit_rows == 40
    assert capabilities.kv_token_budget == 900
    assert "1 thread," in driver.facts.description
    assert "q8_0" in driver.facts.description
    handle = driver.create()
    driver.feed(handle, [7] * 300)
    assert not driver.runner.can_fit(driver.batch(Feed(handle, [7])))


def test_without_settings_it_uses_what_the_model_and_machine_have(open_model: OpenModel, tiny_model: Path) -> None:
    driver = open_model(tiny_model, threads=None)
    assert driver.capabilities.max_tokens_per_handle == 2048
    assert 8 <= driver.capabilities.max_handles <= 32
    assert driver.capabilities.max_batch_tokens == 512


@pytest.mark.parametrize("kv_type", [*KV_TYPES, "F16"])
def test_every_kind_of_kv_decodes(cache_file: Path, tiny_model: Path, kv_type: str) -> None:
    runner = LlamaCppRunner(cache_file=cache_file, tune=by_default)
    spec = RunnerSpec("model", str(tiny_model), context=256, sequences=2, threads=1, kv_type=kv_type)
    driver = Driver(runner, runner.open(spec))
    assert np.isfinite(driver.feed(driver.create(), [5, 6, 7])).all()
    runner.close()


def test_a_kv_type_that_the_model_cannot_have(refuse, tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "odd.gguf", llama__attention__head_count=4, llama__attention__head_count_kv=2)
    assert "block size 32 does not divide" in refuse(path, kv_type="q8_0")


def test_a_model_without_a_chat_template_says_so(tiny: Driver, real: Driver) -> None:
    assert tiny.facts.chat_template is None
    assert real.facts.chat_template is not None


def test_the_setting_replaces_the_template_in_the_file(cache_file: Path, tmp_path: Path, tiny_model: Path) -> None:
    model = write_tiny_model(tmp_path / "chatty.gguf", tokenizer__chat_template="{{ messages }}")
    file = tmp_path / "other.jinja"
    file.write_text("{% for message in messages %}é{% endfor %}")
    fingerprints = {}
    for setting in (None, "{{ bos_token }}", str(file)):
        runner = LlamaCppRunner(cache_file=cache_file, tune=by_default)
        facts = runner.open(RunnerSpec("model", str(model), context=256, sequences=1, chat_template=setting)).facts
        fingerprints[facts.chat_template] = facts.fingerprint
        runner.close()
    assert list(fingerprints) == ["{{ messages }}", "{{ bos_token }}", file.read_text()]
    assert len(set(fingerprints.values())) == 3


def test_a_fingerprint_is_of_content_not_of_place(open_model: OpenModel, tiny_model: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(tiny_model, tmp_path / "copy.gguf"))
    other = write_tiny_model(tmp_path / "other.gguf", seed=2)
    original = open_model(tiny_model, context=256, sequences=1).facts.fingerprint
    assert len(original) == 32
    assert open_model(copy, context=512, sequences=2, threads=1).facts.fingerprint == original
    assert open_model(other, context=256, sequences=1).facts.fingerprint != original
    assert open_model(tiny_model, context=256, sequences=1, kv_type="f32").facts.fingerprint != original


def test_a_runner_opens_once_and_again_after_close(cache_file: Path, tiny_model: Path) -> None:
    runner = LlamaCppRunner(cache_file=cache_file, tune=by_default)
    spec = RunnerSpec("model", str(tiny_model), context=256, sequences=1)
    runner.open(spec)
    with pytest.raises(RunnerError, match="open already"):
        runner.open(spec)
    runner.close()
    runner.close()
    runner.open(spec)
    assert runner.create() is not None
    runner.close()


def test_two_runners_live_side_by_side(open_model: OpenModel, tiny_model: Path) -> None:
    first = open_model(tiny_model, context=256, sequences=1)
    second = open_model(tiny_model, context=256, sequences=1)
    handles = first.create(), second.create()
    logits = first.feed(handles[0], [5, 6, 7])
    assert np.array_equal(second.feed(handles[1], [5, 6, 7]), logits)
    second.runner.close()
    assert np.isfinite(first.feed(handles[0], [8])).all()


def test_bytes_per_token_is_about_what_english_has(real: Driver) -> None:
    assert 2 < real.facts.bytes_per_token < 6
    assert real.facts.max_token_bytes >= 16
