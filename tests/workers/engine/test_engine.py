"""The step thread: its life, its neighbours on other threads, and its end."""

import threading
import time
from collections.abc import Iterator

import pytest

from schemas.errors import ErrorCode
from tests.workers.engine.harness import Client, Steps, chat, request
from workers.engine.config import EngineConfig
from workers.engine.engine import Engine
from workers.engine.inbox import Command, Inbox
from workers.engine.messages import Emission
from workers.runners.base import Batch, ForwardResult, Opened, RunnerError, RunnerSpec
from workers.runners.echo import EchoRunner


def forever(request_id: str):
    return request(request_id, "x", ignore_eos=True, max_tokens=8000)


class Gated(EchoRunner):
    """Holds a forward pass until the test lets it go, or somebody aborts."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.is_gated = False
        self.num_aborts = 0
        self.num_forwards = 0

    def forward(self, batch: Batch) -> ForwardResult:
        self.num_forwards += 1
        if self.is_gated:
            self.entered.release()
            assert self.go.acquire(timeout=20)
        return super().forward(batch)

    def abort(self) -> None:
        self.num_aborts += 1
        super().abort()
        self.go.release()


@pytest.fixture
def gated() -> Iterator[tuple[Client, Gated]]:
    runner = Gated()
    with Client(runner=runner) as client:
        client.engine.wait_ready(10)
        runner.is_gated = True
        yield client, runner
        runner.is_gated = False
        for _ in range(100):
            runner.go.release()


def test_many_threads_submit_and_each_request_gets_its_own_answer() -> None:
    requests = [request(f"r{i}", f"prompt {i}", temperature=0.8) for i in range(64)]
    expected = Steps().run(*requests)
    with Client() as client:
        client.engine.wait_ready(10)
        threads = [threading.Thread(target=client.submit, args=(each,)) for each in requests]
        for thread in threads:
            thread.start()
        answers = [client.wait(each.request_id) for each in requests if not threads[0].join()]
        for thread in threads:
            thread.join()
    assert [answer.text for answer in answers] == [answer.text for answer in expected]
    assert not client.unknown


def test_slots_are_counted_from_submission_to_the_end(gated: tuple[Client, Gated]) -> None:
    client, runner = gated
    engine = client.engine
    assert (engine.slots, engine.free_slots) == (32, 32)
    client.submit(request("a", "x", max_tokens=1), request("b", "x", ignore_eos=True, max_tokens=10))
    assert runner.entered.acquire(timeout=10)
    assert engine.free_slots == 30
    engine.cancel("b")
    assert engine.free_slots == 31
    runner.is_gated = False
    runner.go.release()
    client.wait("a")
    assert engine.free_slots == 32


def test_nothing_can_start_while_a_request_waits_for_kv() -> None:
    with Client("echo:random?kv_tokens=100&rate=1000", context=100) as client:
        client.engine.wait_ready(10)
        client.submit(request("a", "x", ignore_eos=True, max_tokens=90), request("b", "x", max_tokens=90))
        client.wait("a", 1)
        assert client.engine.free_slots == 0
        client.wait("a")
        client.wait("b")
        assert client.engine.free_slots == 32


def test_a_request_cancelled_before_its_first_step_never_speaks(gated: tuple[Client, Gated]) -> None:
    client, runner = gated
    client.submit(forever("a"))
    assert runner.entered.acquire(timeout=10)
    client.submit(forever("b"))
    client.engine.cancel("b")
    runner.is_gated = False
    runner.go.release()
    client.wait("a", 5)
    assert not client.answers["b"].token_ids
    client.engine.cancel("a")


def test_cancelling_everything_in_a_pass_interrupts_it(gated: tuple[Client, Gated]) -> None:
    client, runner = gated
    client.submit(forever("a"), forever("b"))
    assert runner.entered.acquire(timeout=10)
    in_flight = [s.request_id for s in client.engine._stepper.scheduler.running]  # type: ignore[union-attr]
    for request_id in in_flight[:-1]:
        client.engine.cancel(request_id)
        assert runner.num_aborts == 0
    client.engine.cancel(in_flight[-1])
    assert runner.num_aborts == 1


def test_a_request_may_come_again_while_its_cancelled_self_is_still_in_a_pass(gated: tuple[Client, Gated]) -> None:
    client, runner = gated
    client.submit(request("a", "x", max_tokens=1), forever("other"))
    assert runner.entered.acquire(timeout=10)
    client.engine.cancel("a")
    runner.is_gated = False
    client.submit(request("a", "x", max_tokens=3, ignore_eos=True))
    runner.go.release()
    answer = client.wait("a")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3
    client.engine.cancel("other")


def test_a_second_request_of_the_same_id_is_a_mistake_of_the_caller() -> None:
    with Client("echo:random?rate=100") as client:
        client.submit(forever("a"))
        with pytest.raises(ValueError, match="already"):
            client.engine.submit(forever("a"))


def test_cancelling_what_is_not_there_does_nothing() -> None:
    with Client("echo") as client:
        client.engine.cancel("nobody")
        client.submit(request("a", "x"))
        client.wait("a")
        client.engine.cancel("a")


def test_an_idle_engine_sleeps_until_something_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = []
    take = Inbox.take

    def counted(self: Inbox, *, block: bool) -> list[Command] | None:
        turns.append(block)
        return take(self, block=block)

    monkeypatch.setattr(Inbox, "take", counted)
    with Client("echo") as client:
        for number in range(3):
            client.submit(request(f"r{number}", "x"))
            client.wait(f"r{number}")
        assert not client.engine.is_stuck(time.monotonic() + 1000, 1.0)
        steps = client.engine.stats().steps
    assert len(turns) <= steps + 4
    assert turns.count(True) == 4


class Failing(EchoRunner):
    """Breaks for good at the third pass, the trial step not counted."""

    count = -1

    def forward(self, batch: Batch) -> ForwardResult:
        self.count += 1
        if self.count >= 3:
            raise RunnerError("the device is gone")
        return super().forward(batch)


def test_a_broken_runner_fails_everything_inside_and_everything_after() -> None:
    with Client(runner=Failing()) as client:
        client.engine.wait_ready(10)
        client.submit(forever("a"), forever("b"))
        for request_id in ("a", "b"):
            error = client.wait(request_id).error
            assert error is not None
            assert (error.code, error.retryable) == (ErrorCode.INTERNAL, True)
        assert client.engine.broken == "the device is gone"
        assert client.engine.free_slots == 0
        client.submit(forever("later"))
        assert client.wait("later").error is not None


class Buggy(EchoRunner):
    def forward(self, batch: Batch) -> ForwardResult:
        if self.length_of_first(batch) > 20:
            raise ZeroDivisionError
        return super().forward(batch)

    @staticmethod
    def length_of_first(batch: Batch) -> int:
        return int(batch.positions[0])


def test_a_bug_below_the_loop_is_reported_the_same_way() -> None:
    with Client(runner=Buggy()) as client:
        client.submit(forever("a"))
        assert client.wait("a").error is not None
        assert client.engine.broken


def test_a_model_that_does_not_load_is_reported_with_its_reason() -> None:
    with Client("echo:sideways") as client:
        with pytest.raises(RunnerError, match="sideways"):
            client.engine.wait_ready(10)
        assert client.engine.broken
        client.submit(forever("a"))
        assert client.wait("a").error is not None


class Slow(EchoRunner):
    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def open(self, spec: RunnerSpec) -> Opened:
        assert self.go.wait(20)
        return super().open(spec)


def test_requests_submitted_while_the_model_loads_run_afterwards() -> None:
    runner = Slow()
    with Client("echo", runner=runner) as client:
        assert client.engine.slots == 0
        client.submit(request("a", chat("hello")))
        with pytest.raises(RunnerError, match="not loaded within"):
            client.engine.wait_ready(0.01)
        runner.go.set()
        assert client.wait("a").text == "hello"


def test_the_watchdog_sees_a_pass_that_does_not_return(gated: tuple[Client, Gated]) -> None:
    client, runner = gated
    client.submit(forever("a"))
    assert runner.entered.acquire(timeout=10)
    now = time.monotonic()
    assert client.engine.is_stuck(now + 31, 30.0)
    assert not client.engine.is_stuck(now, 30.0)
    runner.is_gated = False
    runner.go.release()
    client.wait("a", 3)
    assert client.engine.last_step_at is not None
    assert client.engine.last_step_at >= now
    client.engine.cancel("a")


def test_close_interrupts_the_running_pass_and_takes_nothing_more(gated: tuple[Client, Gated]) -> None:
    client, runner = gated
    client.submit(forever("a"))
    assert runner.entered.acquire(timeout=10)
    assert client.engine.close(10)
    assert runner.num_aborts == 1
    with pytest.raises(ValueError, match="closed"):
        client.engine.submit(forever("b"))


def test_close_before_start_is_harmless() -> None:
    assert Engine(EchoRunner(), RunnerSpec("echo", "echo"), EngineConfig(), lambda emissions: None).close(1)


def test_statistics_and_the_step_hook_agree() -> None:
    steps: list[tuple[int, int, int, float]] = []
    done = threading.Event()
    emitted: list[Emission] = []

    def emit(emissions: list[Emission]) -> None:
        emitted.extend(emissions)
        if any(hasattr(emission, "usage") for emission in emissions):
            done.set()

    spec = RunnerSpec("echo", "echo", batch_tokens=8)
    engine = Engine(EchoRunner(), spec, EngineConfig(), emit, on_step=lambda *step: steps.append(step))
    engine.start()
    engine.submit(request("a", chat("hello")))
    assert done.wait(10)
    stats = engine.stats()
    assert engine.close(10)
    [usage] = [emission.usage for emission in emitted if hasattr(emission, "usage")]
    assert stats.steps == len(steps)
    assert stats.prompt_tokens_total == sum(step[1] for step in steps) == usage.prompt_tokens
    assert stats.completion_tokens_total == sum(step[2] for step in steps) == usage.completion_tokens
    assert all(step[0] == 1 and step[3] >= 0 for step in steps)
    assert (stats.running, stats.waiting, stats.kv_used_tokens, stats.kv_reserved_tokens) == (0, 0, 0, 0)


def test_bad_configuration_is_refused() -> None:
    for values in ({"max_output_tokens": 0}, {"max_batch_tokens": 0}, {"template_timeout_s": 0.0}):
        with pytest.raises(ValueError, match=next(iter(values))):
            EngineConfig(**values)  # type: ignore[arg-type]
