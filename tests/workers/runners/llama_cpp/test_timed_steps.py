"""Timed steps on a model, of which the times are nobody's business here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.workers.runners.llama_cpp.gguf_file import write_tiny_model
from workers.runners.base import RunnerError
from workers.runners.llama_cpp import timed_steps
from workers.runners.llama_cpp.abort_flag import AbortFlag
from workers.runners.llama_cpp.context import LlamaContext
from workers.runners.llama_cpp.library import load_library
from workers.runners.llama_cpp.model import LlamaModel
from workers.runners.llama_cpp.timed_steps import Subject, TimedSteps
from workers.runners.waiting import RunTime

pytestmark = pytest.mark.llama


@pytest.fixture(scope="module", params=["tiny_model", "real_model"])
def model(request: pytest.FixtureRequest) -> Iterator[LlamaModel]:
    path: Path = request.getfixturevalue(request.param)
    model = LlamaModel(load_library(), path)
    yield model
    model.close()


@pytest.fixture
def subject(model: LlamaModel, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """On a machine on which nobody else computes, as far as is told."""
    monkeypatch.setattr(timed_steps, "run_time", lambda: RunTime(0, 0))
    return Subject(load_library(), model, "f16", 64, AbortFlag())


@pytest.fixture
def open_contexts(monkeypatch: pytest.MonkeyPatch) -> list[LlamaContext]:
    """Those that were made and not closed."""
    contexts: list[LlamaContext] = []
    make, close = LlamaContext.__init__, LlamaContext.close

    def make_(self: LlamaContext, *arguments: object) -> None:
        make(self, *arguments)  # type: ignore[arg-type]
        contexts.append(self)

    def close_(self: LlamaContext) -> None:
        close(self)
        contexts.remove(self)

    monkeypatch.setattr(LlamaContext, "__init__", make_)
    monkeypatch.setattr(LlamaContext, "close", close_)
    return contexts


def test_every_figure_is_there_as_often_as_it_is_asked_for(subject: Subject) -> None:
    with TimedSteps(subject, 60) as timings:
        timings.prepare(64, (64, 16), threads=1)
        for _ in range(2):
            assert all(figure(1) for figure in (timings.decode, timings.batch, timings.prompt))
            assert timings.prefill(64)
            assert timings.prefill(16)
        assert timings.decode(2)
        assert 0 < timings.room_s() < 60
        assert not timings.is_busy()


@pytest.mark.parametrize("batch_tokens", [1, 5, 16])
def test_batches_may_be_smaller_than_what_is_timed_else(subject: Subject, batch_tokens: int) -> None:
    with TimedSteps(subject._replace(batch_tokens=batch_tokens), 60) as timings:
        assert timings.decode(1)
        assert timings.batch(1)


def test_contexts_are_gone_afterwards(subject: Subject, open_contexts: list[LlamaContext]) -> None:
    with pytest.raises(RunnerError, match="no more"), TimedSteps(subject, 60) as timings:
        timings.decode(1)
        timings.prepare(64, (64, 16), threads=1)
        assert len(open_contexts) == 3
        raise RunnerError("no more")
    assert open_contexts == []


def test_no_step_goes_on_when_the_time_is_up(subject: Subject) -> None:
    with TimedSteps(subject, 0.0) as timings:
        assert timings.decode(1) is None
        assert timings.batch(1) is None
        assert timings.room_s() < 0


def test_a_step_that_runs_when_the_time_is_up_ends_early(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    decode = LlamaContext.decode
    monkeypatch.setattr(LlamaContext, "decode", lambda *rows: codes.append(decode(*rows)) or codes[-1])
    with TimedSteps(subject, 60) as timings:
        timings._time_is_up.set()
        assert timings.decode(1) is None
    assert codes == [2]


def test_a_request_to_stop_is_heard(subject: Subject) -> None:
    with TimedSteps(subject, 60) as timings:
        assert timings.decode(1)
        subject.asked_to_stop.set()
        assert timings.decode(1) is None
    subject.asked_to_stop.clear()


def test_on_a_busy_machine_it_stops_at_once(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 10**12, 10**8))
    monkeypatch.setattr(timed_steps, "run_time", lambda: RunTime(*[next(now)] * 2))
    with TimedSteps(subject, 60) as timings:
        assert timings.decode(1) is None
        assert timings.is_busy()


def test_a_decode_that_fails_is_an_error(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LlamaContext, "decode", lambda *_: -3)
    with TimedSteps(subject, 60) as timings, pytest.raises(RunnerError, match="code -3"):
        timings.decode(1)


def test_a_context_that_cannot_be_had_is_an_error(subject: Subject, tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "odd.gguf", llama__attention__head_count=4, llama__attention__head_count_kv=2)
    model = LlamaModel(load_library(), path)
    of_the_model = TimedSteps(subject._replace(model=model, kv_type="q8_0"), 60)
    with of_the_model as timings, pytest.raises(RunnerError, match="block size 32 does not divide"):
        timings.decode(1)
    model.close()
