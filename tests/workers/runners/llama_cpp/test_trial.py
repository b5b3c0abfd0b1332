"""The trial decode: a child process that may crash, what is concluded, and what is remembered."""

import sys
from pathlib import Path

import pytest

from tests.workers.runners.llama_cpp.conftest import by_default
from tests.workers.runners.llama_cpp.driver import Driver
from workers.runners.base import RunnerSpec
from workers.runners.llama_cpp.runner import LlamaCppRunner
from workers.runners.llama_cpp.trial import PASSED, TrialOutcome, TrialRequest, find_trouble, run_trial
from workers.runners.machine import Processor
from workers.runners.remembered import Remembered

WITH_AMX = Processor("Test CPU", frozenset({"avx2", "amx_tile", "amx_int8"}))
WITHOUT_AMX = Processor("Test CPU", frozenset({"avx2"}))
CRASHED = TrialOutcome("SIGSEGV", is_final=True)


class Trials:
    """A trial whose outcome is known, and how often it ran."""

    def __init__(self, outcome: TrialOutcome) -> None:
        self.outcome = outcome
        self.requests: list[TrialRequest] = []

    def __call__(self, request: TrialRequest) -> TrialOutcome:
        self.requests.append(request)
        return self.outcome


@pytest.fixture
def request_(tmp_path: Path) -> TrialRequest:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    return TrialRequest(path, None, 2)


@pytest.fixture
def remembered(tmp_path: Path) -> Remembered:
    return Remembered(tmp_path / "cache" / "trial.json")


@pytest.mark.llama
def test_the_real_child_decodes(tiny_model: Path) -> None:
    assert run_trial(TrialRequest(tiny_model, 0, 1)) == TrialOutcome(PASSED, is_final=True)


@pytest.mark.llama
def test_a_model_that_does_not_load_is_no_verdict(tmp_path: Path, llama_cpp_installed: None) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF, but no more")
    assert run_trial(TrialRequest(path, 0, 1)) == TrialOutcome(PASSED, is_final=False)


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGILL", "SIGABRT"])
def test_a_child_that_dies_of_a_signal_has_crashed(request_: TrialRequest, name: str) -> None:
    child = [sys.executable, "-c", f"import os, signal; os.kill(os.getpid(), signal.{name})"]
    assert run_trial(request_, child) == TrialOutcome(name, is_final=True)


def test_a_child_that_hangs_is_ended_and_tried_again_another_time(request_: TrialRequest) -> None:
    child = [sys.executable, "-c", "import signal; signal.pause()"]
    outcome = run_trial(request_, child, timeout_s=0.3)
    assert not outcome.passed
    assert not outcome.is_final


def test_without_amx_there_is_nothing_to_try(request_: TrialRequest, remembered: Remembered) -> None:
    trial = Trials(CRASHED)
    assert find_trouble(request_, WITHOUT_AMX, "1.0", remembered, trial) is None
    assert trial.requests == []


@pytest.mark.parametrize("outcome", [CRASHED, TrialOutcome(PASSED, is_final=True)])
def test_a_verdict_is_remembered_per_processor_version_and_file(
    request_: TrialRequest, remembered: Remembered, outcome: TrialOutcome
) -> None:
    trial = Trials(outcome)
    expected = None if outcome.passed else "SIGSEGV"
    for _ in range(2):
        assert find_trouble(request_, WITH_AMX, "1.0", remembered, trial) == expected
    assert len(trial.requests) == 1
    find_trouble(request_, WITH_AMX, "1.1", remembered, trial)
    find_trouble(request_, WITH_AMX._replace(name="Another CPU"), "1.0", remembered, trial)
    find_trouble(request_, WITH_AMX._replace(flags=WITH_AMX.flags | {"amx_fp16"}), "1.0", remembered, trial)
    request_.path.write_bytes(b"GGUF other")
    find_trouble(request_, WITH_AMX, "1.0", remembered, trial)
    assert len(trial.requests) == 5


def test_what_is_no_verdict_is_not_remembered(request_: TrialRequest, remembered: Remembered) -> None:
    trial = Trials(TrialOutcome("no end after 120 s", is_final=False))
    for _ in range(2):
        assert find_trouble(request_, WITH_AMX, "1.0", remembered, trial) == "no end after 120 s"
    assert len(trial.requests) == 2


@pytest.mark.llama
def test_after_a_crash_the_model_runs_without_repacked_weights_and_says_so(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []
    import workers.runners.llama_cpp.loading as loading

    real_model = loading.LlamaModel
    monkeypatch.setattr(loading, "processor", lambda: WITH_AMX)
    monkeypatch.setattr(
        loading, "LlamaModel", lambda *args, **kwargs: asked.append(kwargs) or real_model(*args, **kwargs)
    )
    runner = LlamaCppRunner(cache_file=tmp_path / "trial.json", trial=Trials(CRASHED), tune=by_default)
    driver = Driver(runner, runner.open(RunnerSpec("model", str(tiny_model), context=256, sequences=1)))
    assert asked[0]["use_extra_buffers"] is False
    assert "weights not repacked, since the trial decode ended with SIGSEGV" in driver.facts.description
    assert "SIGSEGV" in caplog.text
    driver.feed(driver.create(), [5, 6, 7])
    runner.close()


def test_a_cache_that_cannot_be_used_is_an_empty_one(tmp_path: Path) -> None:
    file = tmp_path / "cache"
    file.write_text("not JSON")
    assert Remembered(file).get("key") is None
    file.write_text("[1]")
    assert Remembered(file).get("key") is None
    file.write_text('{"key": 5}')
    assert Remembered(file).get("key") is None
    impossible = Remembered(file / "below a file" / "trial.json")
    impossible.put("key", "value")
    assert impossible.get("key") is None


def test_the_cache_keeps_the_newest_entries(tmp_path: Path) -> None:
    remembered = Remembered(tmp_path / "trial.json")
    for number in range(300):
        remembered.put(f"key {number}", str(number))
    assert remembered.get("key 0") is None
    assert remembered.get("key 299") == "299"
    assert [file.name for file in tmp_path.iterdir()] == ["trial.json"]
