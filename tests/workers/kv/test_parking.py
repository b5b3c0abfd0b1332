"""KV in host memory: within its bound, and only where a copy is cheaper than computing again."""

from tests.workers.engine.harness import Steps, request
from workers.engine.config import FairnessConfig
from workers.engine.sequence import Sequence
from workers.kv.config import KvConfig
from workers.kv.parking import Parking
from workers.runners.base import Handle, RunnerError
from workers.runners.echo import EchoRunner

SIZE = 1000


class Copier(EchoRunner):
    """Copies at a price, on a clock of its own."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds = seconds
        self.now = 0.0
        self.num_copies = 0

    def clock(self) -> float:
        return self.now

    def export(self, handle: Handle) -> bytes:
        self.now += self.seconds
        self.num_copies += 1
        return super().export(handle)

    def import_(self, data: bytes, num_tokens: int) -> Handle | None:
        self.now += self.seconds
        return super().import_(data, num_tokens)


def sequences(runner: EchoRunner, count: int = 3) -> tuple[Parking, list[Sequence]]:
    """Sequences of SIZE tokens, computed. Four bytes a token, and room for the KV of two and a half."""
    steps = Steps("echo", kv=KvConfig(is_cached=False), runner=runner, sequences=count + 1, batch_tokens=SIZE * count)
    prompts = [request(f"r{i}", chr(97 + i) * (SIZE - 2), ignore_eos=True, max_tokens=10) for i in range(count)]
    steps.add(*prompts)
    steps.step()
    clock = runner.clock if isinstance(runner, Copier) else lambda: 0.0
    return Parking(runner, True, int(2.5 * SIZE * 4), clock), steps.stepper.scheduler.running


def test_what_is_parked_comes_back_whole() -> None:
    runner = Copier()
    parking, [sequence, *_] = sequences(runner)
    assert sequence.handle is not None
    parking.park(sequence, None)
    before = runner.export(sequence.handle)
    runner.release(sequence.handle)
    assert (parking.num_tokens(sequence), parking.num_bytes) == (SIZE, 4 * SIZE)
    handle = parking.restore(sequence)
    assert handle is not None
    assert runner.export(handle) == before
    assert (len(parking), parking.num_bytes) == (0, 0)
    assert parking.restore(sequence) is None


def test_the_bound_holds_and_what_is_beyond_is_computed_again() -> None:
    runner = Copier()
    parking, running = sequences(runner)
    for sequence in running:
        parking.park(sequence, None)
    assert [parking.num_tokens(sequence) for sequence in running] == [SIZE, SIZE, 0]
    assert (len(parking), parking.num_bytes, runner.num_copies) == (2, 8 * SIZE, 2)
    parking.forget(running[0])
    assert (parking.num_tokens(running[0]), parking.num_bytes) == (0, 4 * SIZE)


def test_a_first_copy_beyond_the_bound_is_dropped() -> None:
    runner = Copier()
    _, [sequence, *_] = sequences(runner)
    parking = Parking(runner, True, 10)
    parking.park(sequence, None)
    assert (parking.num_tokens(sequence), parking.num_bytes, len(parking)) == (0, 0, 0)


def test_nothing_is_copied_where_computing_is_cheaper_but_it_is_tried_again_some_time() -> None:
    runner = Copier(seconds=1.0)
    parking, [sequence, *_] = sequences(runner)
    parking.park(sequence, 1.5 / SIZE)
    assert parking.restore(sequence) is not None  # measured now: two seconds there and back, against 1.5
    parking.park(sequence, 1.5 / SIZE)
    assert (parking.num_tokens(sequence), runner.num_copies) == (0, 1)
    for _ in range(10):
        parking.park(sequence, 1.5 / SIZE)
    assert runner.num_copies > 1


def test_where_a_copy_is_cheaper_it_is_made() -> None:
    runner = Copier(seconds=1.0)
    parking, running = sequences(runner)
    for sequence in running[:2]:
        parking.park(sequence, 2.5 / SIZE)
        parking.forget(sequence)
    assert runner.num_copies == 2


def test_a_runner_that_cannot_export_is_not_asked_again() -> None:
    class Broken(Copier):
        def export(self, handle: Handle) -> bytes:
            self.num_copies += 1
            raise RunnerError("it does not export")

    runner = Broken()
    parking, running = sequences(runner)
    for sequence in running:
        parking.park(sequence, None)
    assert len(parking) == 0
    assert runner.num_copies == 1


def test_without_host_memory_everything_is_computed_again() -> None:
    runner = Copier()
    steps = Steps(runner=runner, sequences=1, fairness=FairnessConfig(max_timeslice_tokens=5, parked_kv_bytes=0))
    first, second = steps.run(*(request(f"r{i}", "x", ignore_eos=True, max_tokens=20) for i in range(2)))
    assert (len(first.token_ids), len(second.token_ids), runner.num_copies) == (20, 20, 0)
