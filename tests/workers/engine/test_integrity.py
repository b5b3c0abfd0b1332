"""Books that do not balance are an error with numbers, and the end of the engine."""

from collections.abc import Callable

import pytest

from tests.workers.engine.harness import Client, Steps, request
from workers.engine.integrity import IntegrityError
from workers.runners.base import Handle, RunnerBooks
from workers.runners.echo import EchoRunner


class Forgetful(EchoRunner):
    """Does not free what is released."""

    def release(self, handle: Handle) -> None: ...


class Doubtful(EchoRunner):
    """Finds a fault in its own pages."""

    def books(self) -> RunnerBooks:
        return super().books()._replace(fault="3 pages are held twice")


class Shrinking(EchoRunner):
    """Loses a handle without a trace."""

    def books(self) -> RunnerBooks:
        books = super().books()
        return books._replace(free_handles=books.free_handles - 1)


class Reticent(EchoRunner):
    """Keeps no books."""

    books = None  # type: ignore[assignment]


def forget_a_handle(steps: Steps) -> None:
    steps.stepper.scheduler.kv._num_handles -= 1


def park_a_stranger(steps: Steps) -> None:
    scheduler = steps.stepper.scheduler
    scheduler.parking.park(scheduler.running[0], None)


def take_a_handle(steps: Steps) -> None:
    steps.runner.create()


def share_a_handle(steps: Steps) -> None:
    live = steps.stepper.scheduler.kv._live
    one, other = live
    live[one].handle = one.handle = live[other].handle


def cut_a_handle(steps: Steps) -> None:
    [one, _] = steps.stepper.scheduler.running
    assert one.handle is not None
    steps.runner.truncate(one.handle, 2)


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (forget_a_handle, "2 handles are owned and 1 were counted"),
        (park_a_stranger, "a is parked and does not wait"),
        (take_a_handle, "holds 0 tokens of nobody"),
        (share_a_handle, "has 2 owners"),
        (cut_a_handle, "Handle(id=0, generation=1) should hold 8 tokens, and the runner says 2"),
    ],
)
def test_what_does_not_balance_is_named_with_its_numbers(
    harm: Callable[[Steps], None], complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    steps = Steps()
    steps.add(request("a", "first", max_tokens=195, ignore_eos=True))
    steps.add(request("b", "second", max_tokens=194, ignore_eos=True))
    steps.step()
    steps.step()
    harm(steps)
    with pytest.raises(IntegrityError) as caught:
        steps.stepper.check_integrity()
    assert complaint in str(caught.value)
    assert str(caught.value) in caplog.text


@pytest.mark.parametrize("runner", [Forgetful(), Doubtful(), Shrinking()], ids=lambda runner: type(runner).__name__)
def test_an_engine_that_goes_idle_with_wrong_books_is_broken(runner: EchoRunner) -> None:
    with Client(runner=runner, sequences=2) as client:
        client.submit(request("a", "x", max_tokens=5, ignore_eos=True))
        assert len(client.wait("a").token_ids) == 5  # what was computed before stands
        client.submit(request("b", "x"))
        error = client.wait("b").error
        assert error is not None
        assert error.retryable
        assert "do not balance" in str(client.engine.broken)


def test_a_runner_without_books_is_taken_at_its_word() -> None:
    steps = Steps(runner=Reticent())
    steps.run(request("a", "x"))
    steps.stepper.check_integrity()


def test_an_engine_whose_books_balance_goes_on() -> None:
    with Client(sequences=2) as client:
        for name in ("a", "b", "c"):
            client.submit(request(name, "x", max_tokens=5, ignore_eos=True))
            client.wait(name)
        assert client.engine.broken is None
