"""Who gives way to whom, and that nobody can tell from an answer that it did."""

import pytest

from schemas.requests import PriorityClass
from tests.workers.engine.harness import Answer, Steps, request
from workers.engine.ageing import AGE_S
from workers.engine.config import FairnessConfig
from workers.engine.fairness import MAX_PREEMPTIONS, MIN_RUN_TOKENS
from workers.engine.messages import EngineRequest
from workers.kv.config import KvConfig
from workers.runners.base import Batch, ForwardResult
from workers.runners.echo import EchoRunner

HIGH, NORMAL, LOW, BATCH = PriorityClass
PREEMPTING = FairnessConfig(enable_preemption=True)
CACHED, UNCACHED = KvConfig(is_cached=True), KvConfig(is_cached=False)
RECOMPUTING = FairnessConfig(enable_preemption=True, parked_kv_bytes=0)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def stream(name: str, priority: PriorityClass, num_tokens: int = 100, **params: object) -> EngineRequest:
    """A request that generates exactly so many tokens."""
    return request(name, f"prompt of {name}", priority=priority, max_tokens=num_tokens, ignore_eos=True, **params)


def alone(source: EngineRequest) -> Answer:
    [answer] = Steps().run(source)
    return answer


def running(steps: Steps) -> list[str]:
    return [sequence.request_id for sequence in steps.stepper.scheduler.running]


def step(steps: Steps, times: int = 1) -> list[str]:
    for _ in range(times):
        steps.step()
    return running(steps)


def check_undisturbed(steps: Steps, *requests: EngineRequest) -> None:
    steps.drain()
    for each in requests:
        got, expected = steps.answers[each.request_id], alone(each)
        assert (got.token_ids, got.pieces, got.reason) == (expected.token_ids, expected.pieces, expected.reason)
        assert got.counts == expected.counts
    assert steps.stepper.stats().parked_bytes == 0


@pytest.mark.parametrize("kv", [CACHED, UNCACHED], ids=["cached", "uncached"])
@pytest.mark.parametrize("fairness", [PREEMPTING, RECOMPUTING], ids=["parked", "recomputed"])
def test_a_high_request_takes_the_place_of_the_lowest_and_latest_who_then_goes_on(
    fairness: FairnessConfig, kv: KvConfig
) -> None:
    steps = Steps(sequences=4, fairness=fairness, kv=kv)
    lows = [
        stream("normal", NORMAL, temperature=0.9),
        stream("low-1", LOW, temperature=0.9, repetition_penalty=1.3),
        stream("low-2", LOW, stop=("e ",), temperature=0.7),
        stream("low-3", LOW, temperature=1.2, presence_penalty=0.5),
    ]
    steps.add(*lows)
    step(steps, 20)
    high = stream("high", HIGH, 10)
    steps.add(high)
    assert step(steps) == ["high", "normal", "low-1", "low-2"]
    assert steps.stepper.stats().parked == (fairness.parked_kv_bytes > 0)
    while not steps.answers["high"].is_over:
        step(steps)
    assert step(steps) == ["normal", "low-1", "low-2", "low-3"]
    check_undisturbed(steps, *lows, high)
    stats = steps.stepper.stats()
    assert (stats.preemptions_total, stats.resumes_total, stats.yields_total) == (1, 1, 0)


def test_parked_kv_is_not_computed_again() -> None:
    def num_computed(fairness: FairnessConfig) -> int:
        steps = Steps(sequences=1, fairness=fairness, kv=UNCACHED)
        steps.add(stream("low", LOW))
        step(steps, 50)
        steps.add(stream("high", HIGH, 10))
        steps.drain()
        return sum(count for batch in steps.batches for name, count in batch if name == "low")

    usage = alone(stream("low", LOW)).usage
    assert usage is not None
    assert num_computed(PREEMPTING) == usage.prompt_tokens + 99
    assert num_computed(RECOMPUTING) == 2 * usage.prompt_tokens + 99 + 49


def test_without_preemption_it_waits_its_turn() -> None:
    steps = Steps(sequences=2)
    steps.add(stream("low-1", LOW, 30), stream("low-2", LOW, 50))
    step(steps, 5)
    steps.add(stream("high", HIGH, 10))
    assert step(steps, 20) == ["low-1", "low-2"]
    assert step(steps, 6) == ["high", "low-2"]
    assert steps.stepper.stats().preemptions_total == 0


@pytest.mark.parametrize("newcomer", [NORMAL, LOW, BATCH])
def test_only_class_high_preempts(newcomer: PriorityClass) -> None:
    steps = Steps(sequences=1, fairness=PREEMPTING)
    steps.add(stream("batch", BATCH, 50))
    step(steps, 5)
    steps.add(stream("newcomer", newcomer))
    assert step(steps, 5) == ["batch"]


def test_no_high_request_gives_way_to_another() -> None:
    steps = Steps(sequences=1, fairness=PREEMPTING)
    steps.add(stream("first", HIGH, 50))
    step(steps, 5)
    steps.add(stream("second", HIGH))
    assert step(steps, 5) == ["first"]


def test_kv_is_taken_from_as_few_as_suffice() -> None:
    steps = Steps("echo:random?kv_tokens=400", context=400, sequences=8, fairness=PREEMPTING)
    requests = [stream("large", LOW, 200), stream("small", LOW, 30), stream("tiny", LOW, 10)]
    steps.add(*requests)
    step(steps, 3)
    high = stream("high", HIGH, 300)
    steps.add(high)
    assert step(steps) == ["high", "small", "tiny"]
    check_undisturbed(steps, *requests, high)


def test_nobody_is_evicted_where_that_would_not_be_enough() -> None:
    steps = Steps("echo:random?kv_tokens=400", context=400, sequences=8, fairness=PREEMPTING)
    steps.add(stream("first", HIGH, 200), stream("low", LOW, 50))
    step(steps, 3)
    steps.add(stream("second", HIGH, 300))
    assert step(steps, 5) == ["first", "low"]
    assert steps.stepper.scheduler.is_blocked
    assert steps.stepper.stats().preemptions_total == 0


def test_back_again_a_victim_gets_a_minimum_run_before_it_may_be_one_again() -> None:
    steps = Steps(sequences=1, fairness=PREEMPTING)
    low = stream("low", LOW, 400)
    steps.add(low)
    step(steps, 5)
    steps.add(stream("high-0", HIGH, 4))
    assert step(steps, 4) == []
    steps.add(stream("high-1", HIGH, 4))  # at the same moment as the victim comes back: it goes first
    assert step(steps, 4) == []
    assert step(steps) == ["low"]
    before = len(steps.answers["low"].token_ids)
    steps.add(stream("high-2", HIGH, 4))
    while step(steps) == ["low"]:
        pass
    assert len(steps.answers["low"].token_ids) - before + 1 == MIN_RUN_TOKENS
    check_undisturbed(steps, low)


def test_a_flood_of_high_requests_preempts_one_request_only_so_often() -> None:
    steps = Steps(sequences=1, fairness=RECOMPUTING)
    low = stream("low", LOW, 300)
    steps.add(low)
    step(steps, 5)
    flood = 0
    while not steps.answers["low"].is_over:
        if "low" in running(steps):
            flood += 1
            steps.add(stream(f"high-{flood}", HIGH, 2))
        step(steps)
    assert steps.stepper.stats().preemptions_total == MAX_PREEMPTIONS
    computed = sum(count for batch in steps.batches for name, count in batch if name == "low")
    expected = alone(low)
    assert expected.usage is not None
    assert computed <= (1 + MAX_PREEMPTIONS) * (expected.usage.prompt_tokens + 300)
    assert steps.answers["low"].token_ids == expected.token_ids


def test_sequences_take_turns_of_so_many_tokens() -> None:
    steps = Steps(sequences=1, fairness=FairnessConfig(max_timeslice_tokens=10))
    requests = [stream(name, NORMAL, 35, temperature=0.9) for name in ("a", "b", "c")]
    steps.add(*requests)
    turns = []
    while steps.stepper.has_work:
        before = {name: len(answer.token_ids) for name, answer in steps.answers.items()}
        step(steps)
        [grown] = [name for name, answer in steps.answers.items() if len(answer.token_ids) > before[name]]
        if not turns or turns[-1][0] != grown:
            turns.append((grown, 0))
        turns[-1] = (grown, turns[-1][1] + 1)
    assert turns == [(name, count) for count in (10, 10, 10, 5) for name in ("a", "b", "c")]
    check_undisturbed(steps, *requests)
    stats = steps.stepper.stats()
    assert (stats.yields_total, stats.resumes_total, stats.preemptions_total) == (9, 9, 0)


def test_with_several_places_who_had_the_longest_turn_yields_first() -> None:
    steps = Steps(sequences=2, fairness=FairnessConfig(max_timeslice_tokens=10))
    steps.add(stream("a", NORMAL, 60))
    step(steps, 5)
    steps.add(stream("b", NORMAL, 60))
    step(steps, 15)
    steps.add(stream("c", NORMAL, 60))
    assert sorted(step(steps)) == ["b", "c"]
    assert sorted(step(steps)) == ["a", "c"]  # b has had its turn too


def test_alone_nobody_yields() -> None:
    steps = Steps(sequences=2, fairness=FairnessConfig(max_timeslice_tokens=5))
    steps.run(stream("a", NORMAL, 60), stream("b", NORMAL, 60))
    assert steps.stepper.stats().yields_total == 0


@pytest.mark.parametrize(("newcomer", "yields"), [(HIGH, True), (NORMAL, True), (LOW, False)])
def test_it_yields_to_its_class_and_those_above(newcomer: PriorityClass, yields: bool) -> None:
    steps = Steps(sequences=1, fairness=FairnessConfig(max_timeslice_tokens=10))
    steps.add(stream("old", NORMAL, 60))
    step(steps, 11)
    steps.add(stream("new", newcomer, 60))
    assert step(steps) == ["new" if yields else "old"]


def test_a_class_that_waits_long_is_treated_as_the_next() -> None:
    clock = Clock()
    steps = Steps(sequences=1, clock=clock)
    steps.add(stream("running", NORMAL, 10), stream("low", LOW, 10))
    step(steps)
    clock.now += AGE_S - 1
    steps.add(stream("normal-1", NORMAL, 10))
    assert step(steps, 10) == ["normal-1"]
    clock.now += 1
    steps.add(stream("normal-2", NORMAL, 10))
    assert step(steps, 10) == ["low"]


def test_two_classes_take_twice_as_long() -> None:
    clock = Clock()
    steps = Steps(sequences=1, clock=clock)
    steps.add(stream("running", NORMAL, 10), stream("low", LOW, 10))
    step(steps)
    clock.now += 2 * AGE_S - 1
    steps.add(stream("high-1", HIGH, 10))
    assert step(steps, 10) == ["high-1"]
    clock.now += 1
    steps.add(stream("high-2", HIGH, 10))
    assert step(steps, 10) == ["low"]


def test_age_grants_no_place_that_is_taken() -> None:
    clock = Clock()
    steps = Steps(sequences=1, clock=clock, fairness=PREEMPTING)
    steps.add(stream("normal", NORMAL, 50), stream("batch", BATCH, 10))
    step(steps, 2)
    clock.now += 10 * AGE_S
    assert step(steps, 5) == ["normal"]


def test_a_prompt_that_gets_nothing_ages_too() -> None:
    clock = Clock()
    steps = Steps(batch_tokens=10, clock=clock)
    steps.add(request("low", "x" * 100, priority=LOW))
    step(steps)
    clock.now += AGE_S - 1
    steps.add(request("normal-1", "y" * 18))
    step(steps, 2)
    assert steps.batches[-2:] == [[("normal-1", 10)]] * 2
    steps.cancel("normal-1")
    clock.now += 1
    steps.add(request("normal-2", "z" * 18))
    step(steps)
    assert steps.batches[-1] == [("low", 10)]


def test_a_cancelled_victim_leaves_nothing_behind() -> None:
    steps = Steps(sequences=1, fairness=PREEMPTING)
    steps.add(stream("low", LOW))
    step(steps, 20)
    steps.add(stream("high", HIGH, 10))
    step(steps)
    assert steps.stepper.stats().parked == 1
    steps.cancel("low")
    assert (steps.stepper.stats().parked, steps.stepper.stats().parked_bytes) == (0, 0)
    steps.drain()
    assert steps.free_handles == 1


def test_a_victim_is_parked_in_the_middle_of_its_prompt() -> None:
    steps = Steps(sequences=1, batch_tokens=16, fairness=PREEMPTING)
    low = request("low", "x" * 100, priority=LOW, temperature=0.9)
    steps.add(low)
    step(steps, 3)
    high = stream("high", HIGH, 5)
    steps.add(high)
    step(steps)
    steps.drain()
    usage = steps.answers["low"].usage
    assert usage is not None
    computed = sum(count for batch in steps.batches for name, count in batch if name == "low")
    assert computed == usage.prompt_tokens + usage.completion_tokens - 1
    check_undisturbed(steps, low, high)


class Refusing(EchoRunner):
    """Takes no KV back."""

    def import_(self, data: bytes, num_tokens: int) -> None:
        return None


def test_kv_that_the_runner_does_not_take_back_is_computed_again() -> None:
    steps = Steps(runner=Refusing(), sequences=1, fairness=PREEMPTING)
    low, high = stream("low", LOW), stream("high", HIGH, 5)
    steps.add(low)
    step(steps, 20)
    steps.add(high)
    check_undisturbed(steps, low, high)


def test_a_pass_without_space_and_preemption_leave_no_trace_together() -> None:
    class Cramped(EchoRunner):
        def can_fit(self, batch: Batch) -> bool:
            return self._num_used + len(batch.tokens) <= 150

        def forward(self, batch: Batch) -> ForwardResult:
            return super().forward(batch)

    steps = Steps(runner=Cramped(), sequences=3, fairness=FairnessConfig(True, 7))
    requests = [stream(f"r{i}", priority, 40) for i, priority in enumerate([LOW, BATCH, NORMAL, HIGH, LOW, HIGH])]
    for each in requests:
        steps.add(each)
        step(steps, 6)
    check_undisturbed(steps, *requests)


@pytest.mark.parametrize(
    ("fairness", "expected"),
    [
        (FairnessConfig(), {HIGH: 0, NORMAL: 0, LOW: 0}),
        (PREEMPTING, {HIGH: 2, NORMAL: 0, LOW: 0}),
        (FairnessConfig(max_timeslice_tokens=10), {HIGH: 2, NORMAL: 2, LOW: 1}),
    ],
    ids=["off", "preemption", "timeslice"],
)
def test_places_that_others_would_give(fairness: FairnessConfig, expected: dict[PriorityClass, int]) -> None:
    steps = Steps(sequences=2, fairness=fairness)
    steps.add(stream("normal", NORMAL), stream("low", LOW))
    step(steps, 12)
    scheduler = steps.stepper.scheduler
    assert {priority: scheduler.num_places(priority) for priority in expected} == expected
    steps.add(stream("high", HIGH))
    assert scheduler.num_places(HIGH) == max(0, expected[HIGH] - 1)


def test_places_are_no_more_than_there_are_places_in_all() -> None:
    steps = Steps(sequences=2, fairness=FairnessConfig(max_timeslice_tokens=1))
    steps.add(*(stream(f"r{i}", NORMAL) for i in range(4)))
    step(steps, 5)
    assert steps.stepper.scheduler.num_places(HIGH) == 0
