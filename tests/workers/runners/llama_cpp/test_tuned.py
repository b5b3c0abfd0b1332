"""Measured once, then remembered; and what a start makes of it."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.workers.runners.llama_cpp.driver import Driver
from workers.runners.base import RunnerError, RunnerSpec
from workers.runners.llama_cpp import timed_steps, tuned
from workers.runners.llama_cpp.abort_flag import AbortFlag
from workers.runners.llama_cpp.runner import LlamaCppRunner
from workers.runners.llama_cpp.timed_steps import Subject
from workers.runners.llama_cpp.tuned import TuningRequest, find_tuning, measure
from workers.runners.llama_cpp.tuner import Outcome
from workers.runners.llama_cpp.tuning import Tuning
from workers.runners.machine import Processor
from workers.runners.remembered import Remembered
from workers.runners.waiting import RunTime

PROCESSOR = Processor("Test CPU", frozenset({"avx2"}))
FOUND = Tuning(1, 2, 128)


class Measurements:
    """What a measurement comes to, or fails with, and how often there was one."""

    def __init__(self, result: Outcome | RunnerError) -> None:
        self.result = result
        self.requests: list[TuningRequest] = []

    def __call__(self, request: TuningRequest) -> Outcome:
        self.requests.append(request)
        if isinstance(self.result, RunnerError):
            raise self.result
        return self.result


@pytest.fixture
def request_(tmp_path: Path) -> TuningRequest:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    library = SimpleNamespace(can_offload=False, version="1.0")
    subject = Subject(library, SimpleNamespace(trained_context=2048), "f16", 512, AbortFlag())  # type: ignore[arg-type]
    return TuningRequest(subject, path, None, processors=4, cores=3, is_repacked=True)


@pytest.fixture
def remembered(tmp_path: Path) -> Remembered:
    return Remembered(tmp_path / "cache" / "trial.json")


@pytest.fixture
def found() -> Measurements:
    return Measurements(Outcome(FOUND, "it was faster", is_final=True))


def test_it_is_measured_once(request_: TuningRequest, remembered: Remembered, found: Measurements) -> None:
    for _ in range(3):
        assert find_tuning(request_, PROCESSOR, remembered, found) == FOUND
    assert len(found.requests) == 1


def test_all_that_it_depends_on_has_it_measured_again(
    request_: TuningRequest, remembered: Remembered, found: Measurements, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = request_.subject
    others = [
        request_,
        request_._replace(processors=5),
        request_._replace(cores=2),
        request_._replace(threads=3),
        request_._replace(is_repacked=False),
        request_._replace(subject=subject._replace(kv_type="q8_0")),
        request_._replace(subject=subject._replace(batch_tokens=256)),
        request_._replace(subject=subject._replace(library=SimpleNamespace(can_offload=False, version="1.1"))),
    ]
    for request in others:
        find_tuning(request, PROCESSOR, remembered, found)
    find_tuning(request_, PROCESSOR._replace(name="Another"), remembered, found)
    find_tuning(request_, PROCESSOR._replace(flags=frozenset()), remembered, found)
    request_.path.write_bytes(b"GGUF other")
    find_tuning(request_, PROCESSOR, remembered, found)
    monkeypatch.setattr(tuned, "_rules", lambda: "others")
    find_tuning(request_, PROCESSOR, remembered, found)
    assert len(found.requests) == len(others) + 4


def test_what_is_not_final_is_taken_and_measured_again(request_: TuningRequest, remembered: Remembered) -> None:
    cut_short = Measurements(Outcome(FOUND, "it had to stop", is_final=False))
    for _ in range(2):
        assert find_tuning(request_, PROCESSOR, remembered, cut_short) == FOUND
    assert len(cut_short.requests) == 2


def test_a_failure_leaves_the_defaults(
    request_: TuningRequest, remembered: Remembered, caplog: pytest.LogCaptureFixture
) -> None:
    failing = Measurements(RunnerError("llama.cpp makes no context"))
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            assert find_tuning(request_, PROCESSOR, remembered, failing) == Tuning(4, 4, 512)
    assert len(failing.requests) == 2
    assert "makes no context" in caplog.text


@pytest.mark.parametrize("text", ["", "1 2", "1 2 128 1", "1 2 x", "1 -2 128", "9 9 512", "1 2 1024", "² 2 128"])
def test_what_it_would_not_have_written_is_measured_again(
    request_: TuningRequest, remembered: Remembered, found: Measurements, text: str
) -> None:
    find_tuning(request_, PROCESSOR, remembered, found)
    for key in remembered._read():
        remembered.put(key, text)
    assert find_tuning(request_, PROCESSOR, remembered, found) == FOUND
    assert len(found.requests) == 2


def test_where_there_is_no_choice_nothing_is_measured(
    request_: TuningRequest, remembered: Remembered, found: Measurements
) -> None:
    small = request_._replace(subject=request_.subject._replace(batch_tokens=100))
    assert find_tuning(small._replace(threads=3), PROCESSOR, remembered, found) == Tuning(3, 3, 100)
    assert find_tuning(small._replace(processors=1, cores=1), PROCESSOR, remembered, found) == Tuning(1, 1, 100)
    gpu_build = SimpleNamespace(can_offload=True, version="1.0")
    for_gpus = request_._replace(subject=request_.subject._replace(library=gpu_build))  # type: ignore[arg-type]
    assert find_tuning(for_gpus, PROCESSOR, remembered, found) == Tuning(4, 4, 512)
    assert found.requests == []


def test_it_is_said_what_was_measured_and_that_it_was(
    request_: TuningRequest, remembered: Remembered, found: Measurements, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            find_tuning(request_, PROCESSOR, remembered, found)
    measured, known = (record.getMessage() for record in caplog.records)
    assert "model.gguf takes 1 thread for one row and 2 threads for more, micro-batches of 128" in measured
    assert measured.endswith("it was faster")
    assert known.endswith("micro-batches of 128, as measured at an earlier start")


def test_a_prompt_is_no_longer_than_the_model_can_have(request_: TuningRequest) -> None:
    model = SimpleNamespace(trained_context=300)
    assert request_.choices.max_prompt == 512
    assert request_._replace(subject=request_.subject._replace(model=model)).choices.max_prompt == 300
    model.trained_context = 0
    assert request_._replace(subject=request_.subject._replace(model=model)).choices.max_prompt == 512


@pytest.fixture
def open_(tiny_model: Path, cache_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Opens the tiny model on a CPU build and two processors, closed when the test is done."""
    monkeypatch.setattr("workers.runners.llama_cpp.library.Library.can_offload", False)
    for module in ("loading", "opened"):
        monkeypatch.setattr(f"workers.runners.llama_cpp.{module}.num_processors", lambda: 2)
    runners: list[LlamaCppRunner] = []

    def open__(tune: Callable[[TuningRequest], Outcome], **spec: object) -> Driver:
        runner = LlamaCppRunner(cache_file=tmp_path / "trial.json", tune=tune)
        runners.append(runner)
        return Driver(runner, runner.open(RunnerSpec("m", str(tiny_model), **{"context": 256, "sequences": 2, **spec})))

    yield open__
    for runner in runners:
        runner.close()


@pytest.mark.llama
def test_a_model_runs_as_it_was_tuned_and_says_so(open_, found: Measurements) -> None:
    for _ in range(2):
        driver = open_(found)
        assert "1 thread for one row and 2 threads for more, micro-batches of 128" in driver.facts.description
        context, api = driver.runner._open_session().context, driver.runner._open_session().context._api
        assert api.llama_n_threads(context._pointer) == 1
        assert api.llama_n_threads_batch(context._pointer) == 2
        assert api.llama_n_ubatch(context._pointer) == 128
        driver.feed(driver.create(), [5] * 200)
    assert len(found.requests) == 1


@pytest.mark.llama
@pytest.mark.parametrize(("tuning", "is_held_back"), [(Tuning(1, 1, 512), False), (Tuning(1, 2, 512), True)])
def test_tokens_are_held_back_where_any_step_takes_every_processor(open_, tuning: Tuning, is_held_back: bool) -> None:
    driver = open_(Measurements(Outcome(tuning, "", is_final=True)))
    assert (driver.capabilities.emit_interval_s > 0) is is_held_back


@pytest.mark.llama
def test_sizes_do_not_depend_on_what_was_measured(open_, found: Measurements) -> None:
    untuned = Measurements(Outcome(Tuning(2, 2, 512), "", is_final=False))
    one, other = (open_(tune, context=None, sequences=None) for tune in (untuned, found))
    assert one.capabilities == replace(other.capabilities, emit_interval_s=one.capabilities.emit_interval_s)
    assert one.facts.fingerprint == other.facts.fingerprint


@pytest.mark.llama
def test_configured_threads_are_asked_for_as_they_are(open_, found: Measurements) -> None:
    open_(found, threads=1)
    (request,) = found.requests
    assert request.choices.threads == ()
    assert request.choices.default == Tuning(1, 1, 512)


@pytest.mark.llama
def test_a_context_that_fails_does_not_stop_the_start(open_, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RunnerError("llama.cpp makes no context")

    monkeypatch.setattr(timed_steps, "LlamaContext", fail)
    driver = open_(measure)
    assert "2 threads, micro-batches of 512" in driver.facts.description
    driver.feed(driver.create(), [5, 6, 7])


@pytest.mark.llama
def test_the_tiny_model_is_measured_once(open_, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(timed_steps, "run_time", lambda: RunTime(0, 0))
    with caplog.at_level(logging.INFO, "workers.runners.llama_cpp.tuned"):
        descriptions = {open_(measure, threads=1).facts.description for _ in range(2)}
    assert len(descriptions) == 1
    assert "of a longer prompt" in caplog.records[0].getMessage()
    assert "at an earlier start" in caplog.records[1].getMessage()


@pytest.mark.llama
def test_when_there_is_no_time_the_defaults_stay_and_the_next_start_tries_again(
    open_, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    monkeypatch.setattr(timed_steps, "run_time", lambda: RunTime(0, 0))
    monkeypatch.setattr(tuned, "BUDGET_S", 0.0)
    with caplog.at_level(logging.INFO, "workers.runners.llama_cpp.tuned"):
        for _ in range(2):
            assert "1 thread, micro-batches of 512" in open_(measure, threads=1).facts.description
    assert [record.getMessage().count("to be measured at the next start") for record in caplog.records] == [1, 1]


@pytest.mark.llama
def test_a_busy_machine_is_measured_at_the_next_start(open_, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(timed_steps.TimedSteps, "is_busy", lambda _: True)
    with caplog.at_level(logging.INFO, "workers.runners.llama_cpp.tuned"):
        for _ in range(2):
            assert "1 thread, micro-batches of 512" in open_(measure, threads=1).facts.description
    assert [record.getMessage().count("others have the processors") for record in caplog.records] == [1, 1]


@pytest.mark.llama
def test_an_abort_before_a_model_is_open_ends_that(open_, tiny_model: Path, tmp_path: Path) -> None:
    runner = LlamaCppRunner(cache_file=tmp_path / "other.json")
    runner.abort()
    with pytest.raises(RunnerError, match="trial decode failed with code 2"):
        runner.open(RunnerSpec("m", str(tiny_model), context=256, sequences=1))
    assert runner._session is None
    assert list(tmp_path.glob("other.json")) == []
