"""What sequences take from each other, one after the other and at the same moment."""

from dataclasses import replace
from typing import Any

import pytest

from schemas.requests import PriorityClass, TokenPrompt
from tests.support.echo_kinds import EchoKind
from tests.workers.engine.harness import Steps, request
from workers.engine.messages import EngineRequest, Resume
from workers.kv.audit import audit
from workers.kv.config import CacheScope, Eviction, KvConfig
from workers.runners.base import ForkKind, Opened, RunnerSpec

SYSTEM = [(5 * place * place + place) % 26 + 97 for place in range(300)]
KINDS = pytest.mark.parametrize("fork", [ForkKind.SHARED, ForkKind.COPIED])


def ask(name: str, prompt: list[int], **params: Any) -> EngineRequest:
    params = {"ignore_eos": True, "max_tokens": 5, "temperature": 0.0} | params
    return request(name, TokenPrompt(tuple(prompt)), **params)


def steps_on(runner: EchoKind, *, kv_tokens: int = 100_000, kv: KvConfig | None = None, **limits: int) -> Steps:
    limits = {"context": 400, "sequences": 4, "batch_tokens": 512} | limits
    return Steps(f"echo:random?kv_tokens={kv_tokens}", runner=runner, kv=kv or KvConfig(), **limits)


def alone(source: EngineRequest) -> list[int]:
    [answer] = Steps(context=400, kv=KvConfig(is_cached=False)).run(source)
    return answer.token_ids


def check(steps: Steps) -> None:
    assert audit(steps.stepper.scheduler.kv, steps.runner) == []


@KINDS
def test_a_prompt_that_begins_like_an_earlier_one_computes_only_the_rest(fork: ForkKind) -> None:
    runner = EchoKind(fork)
    steps = steps_on(runner)
    steps.run(ask("a", SYSTEM[:100] + [65] * 20))
    before = runner.num_forwarded
    second = ask("b", SYSTEM[:100] + [66] * 30)
    [answer] = steps.run(second)
    assert answer.token_ids == alone(second)
    assert runner.num_forwarded - before == 30 + 4
    assert answer.usage == (130, 5, 100)
    stats = steps.stepper.stats()
    assert (stats.prefix_hits_total, stats.prefix_misses_total, stats.prefix_matched_tokens_total) == (1, 1, 100)
    check(steps)


@KINDS
def test_the_last_token_of_a_prompt_that_is_there_in_full_is_computed_anew(fork: ForkKind) -> None:
    runner = EchoKind(fork)
    steps = steps_on(runner)
    [first] = steps.run(ask("a", SYSTEM[:80]))
    before = runner.num_forwarded
    [again] = steps.run(ask("b", SYSTEM[:80]))
    assert again.token_ids == first.token_ids
    assert runner.num_forwarded - before == 1 + 4
    assert again.usage == (80, 5, 79)


def test_the_next_turn_goes_on_in_the_kv_of_the_last_one() -> None:
    """Nothing is copied, and the earlier turn takes no room of its own."""
    runner = EchoKind(ForkKind.COPIED)
    steps = steps_on(runner)
    prompt = SYSTEM[:50]
    for turn in range(4):
        source = ask(f"r{turn}", prompt)
        [answer] = steps.run(source)
        assert answer.token_ids == alone(source)
        assert answer.usage is not None
        assert answer.usage.cached_tokens == (len(prompt) - 11 if turn else 0)
        prompt = [*prompt, *answer.token_ids, *[65 + turn] * 10]
    assert runner.num_forks == 0
    assert steps.stepper.scheduler.kv.num_cached_handles == 1
    check(steps)


@pytest.mark.parametrize("fork", list(ForkKind))
def test_of_many_that_come_at_once_one_computes_what_they_share(fork: ForkKind) -> None:
    runner = EchoKind(fork, spare=2)
    steps = steps_on(runner, sequences=16, batch_tokens=64)
    requests = [ask(f"r{i}", SYSTEM + [65 + i] * 20) for i in range(16)]
    answers = steps.run(*requests)
    assert [answer.token_ids for answer in answers] == [alone(each) for each in requests]
    if fork is not ForkKind.NONE:
        assert steps.stepper.stats().prompt_tokens_total == 300 + 16 * 20
        assert sorted(answer.usage.cached_tokens for answer in answers if answer.usage) == [0] + [300] * 15
    check(steps)


@KINDS
def test_who_waits_goes_on_with_what_a_cancelled_one_has_computed(fork: ForkKind) -> None:
    runner = EchoKind(fork)
    steps = steps_on(runner, batch_tokens=64)
    sources = [ask(f"r{i}", SYSTEM + [65 + i] * 20) for i in range(3)]
    steps.add(*sources)
    steps.step()
    steps.step()
    assert [len(batch) for batch in steps.batches] == [1, 1]
    steps.cancel("r0")
    check(steps)
    steps.drain()
    for source in sources[1:]:
        assert steps.answers[source.request_id].token_ids == alone(source)
    assert steps.stepper.stats().prompt_tokens_total == 300 + 2 * 20
    assert [steps.answers[f"r{i}"].usage[2] for i in (1, 2)] == [128, 300]  # type: ignore[index]
    check(steps)


class Poisoned(EchoKind):
    """Computes nonsense in the next pass that wants logits, once it is told to."""

    is_told = False

    def forward(self, batch):  # type: ignore[no-untyped-def]
        result = super().forward(batch)
        if self.is_told and result.logits is not None and len(result.logits):
            self.is_told = False
            result.logits[:] = float("nan")
        return result


def test_nobody_goes_on_with_the_kv_of_one_that_failed() -> None:
    runner = Poisoned(ForkKind.SHARED)
    steps = steps_on(runner)
    runner.is_told = True
    second = ask("b", SYSTEM[:100] + [66] * 10)
    steps.add(ask("a", SYSTEM[:100]), second)
    steps.drain()
    assert steps.answers["a"].error is not None
    answer = steps.answers["b"]
    assert (answer.token_ids, answer.usage) == (alone(second), (110, 5, 0))
    check(steps)


@KINDS
def test_who_waits_lets_others_pass(fork: ForkKind) -> None:
    steps = steps_on(EchoKind(fork), batch_tokens=64)
    steps.add(ask("first", SYSTEM), ask("waits", SYSTEM + [65] * 9), ask("other", [70] * 40))
    steps.step()
    assert [name for name, _ in steps.batches[0]] == ["first"]
    steps.drain()
    order = [name for batch in steps.batches for name, _ in batch]
    assert order.index("other") < order.index("waits")


def test_a_higher_class_never_waits_for_a_lower_one() -> None:
    steps = steps_on(EchoKind(ForkKind.SHARED), batch_tokens=50)
    steps.add(ask("low", SYSTEM, priority=PriorityClass.LOW))
    steps.step()
    steps.add(ask("high", SYSTEM[:299], priority=PriorityClass.HIGH))
    steps.step()
    assert steps.batches[1] == [("high", 50)]
    assert steps.stepper.scheduler.kv.num_waiting == 0
    steps.drain()
    # And it takes what is there: 50 tokens of it.
    assert steps.answers["high"].usage == (299, 5, 50)


def test_a_short_beginning_is_not_waited_for() -> None:
    steps = steps_on(EchoKind(ForkKind.SHARED))
    steps.add(ask("a", SYSTEM[:30] + [65] * 40), ask("b", SYSTEM[:30] + [66] * 40))
    steps.step()
    assert steps.batches == [[("a", 70), ("b", 70)]]


def test_a_chain_of_those_that_wait_ends_when_its_first_does() -> None:
    """Each has more in common with the one before it than with any other."""
    steps = steps_on(EchoKind(ForkKind.COPIED), batch_tokens=32)
    sources = [ask(f"r{i}", SYSTEM[: 100 + 60 * i]) for i in range(4)]
    steps.add(*sources)
    steps.step()
    assert steps.stepper.scheduler.kv.num_waiting == 3
    steps.cancel("r0")
    check(steps)
    steps.step()
    steps.cancel("r1")
    steps.drain()
    assert [steps.answers[f"r{i}"].token_ids for i in (2, 3)] == [alone(source) for source in sources[2:]]
    check(steps)


@pytest.mark.parametrize(("scope", "expected"), [(CacheScope.GLOBAL, 100), (CacheScope.TENANT, 0)])
def test_kv_of_another_tenant_is_used_only_where_it_is_allowed(scope: CacheScope, expected: int) -> None:
    steps = steps_on(EchoKind(ForkKind.SHARED), kv=KvConfig(scope=scope))
    prompt = SYSTEM[:100]
    steps.run(ask("a", [*prompt, 65], tenant="one"))
    answers = steps.run(ask("b", [*prompt, 66], tenant="other"), ask("c", [*prompt, 67], tenant="one"))
    assert [answer.usage.cached_tokens for answer in answers if answer.usage] == [expected, 100]
    # At the same moment as well.
    together = [[*SYSTEM[100:200], 68 + i] for i in range(2)]
    answers = steps.run(ask("d", together[0], tenant="one"), ask("e", together[1], tenant="other"))
    assert [answer.usage.cached_tokens for answer in answers if answer.usage] == [0, expected]


def test_without_a_cache_nothing_is_kept_or_shared() -> None:
    runner = EchoKind(ForkKind.SHARED)
    steps = steps_on(runner, kv=KvConfig(is_cached=False))
    answers = steps.run(*(ask(f"r{i}", [*SYSTEM, 65 + i]) for i in range(3)))
    assert [answer.usage.cached_tokens for answer in answers if answer.usage] == [0, 0, 0]
    assert (runner.num_used, steps.stepper.stats().prefix_misses_total) == (0, 0)


@KINDS
def test_a_preempted_sequence_finds_its_own_kv_again(fork: ForkKind) -> None:
    runner = EchoKind(fork)
    steps = steps_on(runner)
    source = ask("a", SYSTEM[:100], max_tokens=20)
    steps.add(source)
    for _ in range(6):
        steps.step()
    scheduler = steps.stepper.scheduler
    scheduler.preempt(scheduler.running[0])
    before = runner.num_forwarded
    steps.drain()
    answer = steps.answers["a"]
    assert answer.token_ids == alone(source)
    assert runner.num_forwarded - before == 20 - 6
    assert answer.usage == (100, 20, 0)


@KINDS
def test_a_resumed_sequence_begins_with_what_is_there_like_any_other(fork: ForkKind) -> None:
    runner = EchoKind(fork)
    steps = steps_on(runner)
    source = ask("a", SYSTEM[:100], max_tokens=20)
    [whole] = steps.run(source)
    before = runner.num_forwarded
    resume = Resume(whole.token_ids[:12], whole.pieces[:12])
    [rest] = steps.run(ask("b", SYSTEM[:100], max_tokens=20, resume=resume))
    assert whole.token_ids[:12] + rest.token_ids == whole.token_ids
    assert (runner.num_forwarded - before, rest.usage) == (1 + 7, (100, 20, 100))


def test_a_request_may_need_every_page_there_is() -> None:
    steps = steps_on(EchoKind(ForkKind.SHARED, page_size=16), kv_tokens=150)
    [answer] = steps.run(ask("a", SYSTEM[:100], max_tokens=100))
    assert answer.usage == (100, 44, 0)


def test_a_cancelled_prefill_is_kept_as_far_as_it_got() -> None:
    steps = steps_on(EchoKind(ForkKind.COPIED), batch_tokens=64)
    steps.add(ask("a", SYSTEM))
    steps.step()
    steps.cancel("a")
    [answer] = steps.run(ask("b", SYSTEM))
    assert answer.usage == (300, 5, 64)


@KINDS
@pytest.mark.parametrize("eviction", list(Eviction))
def test_cached_kv_never_keeps_a_request_waiting(fork: ForkKind, eviction: Eviction) -> None:
    steps = steps_on(EchoKind(fork), kv_tokens=400, kv=KvConfig(eviction=eviction))
    for number in range(12):
        steps.run(ask(f"r{number}", [65 + number] * 80))
    assert steps.stepper.stats().kv_cached_tokens > 250
    steps.add(*(ask(f"s{number}", [97 + number] * 90) for number in range(4)))
    steps.step()
    assert len(steps.stepper.scheduler.running) == 4
    check(steps)
    steps.drain()


def test_nothing_is_evicted_for_a_request_that_does_not_fit_anyway() -> None:
    steps = steps_on(EchoKind(ForkKind.COPIED), kv_tokens=400)
    steps.run(ask("kept", [65] * 80))
    steps.add(ask("runs", [66] * 100, max_tokens=90))
    steps.step()
    steps.add(ask("large", [67] * 200, max_tokens=100))
    steps.step()
    assert steps.stepper.scheduler.is_blocked
    assert steps.stepper.scheduler.kv.num_cached_handles == 1


def test_where_a_fork_needs_room_that_is_not_there_the_source_itself_goes_on() -> None:
    runner = EchoKind(ForkKind.COPIED)
    steps = steps_on(runner, kv_tokens=400)
    steps.run(ask("a", SYSTEM[:200] + [65] * 50))
    source = ask("b", SYSTEM[:200] + [66] * 50)
    [answer] = steps.run(source)
    assert (answer.token_ids, answer.usage) == (alone(source), (250, 5, 200))
    assert runner.num_forks == 0
    check(steps)


def test_sharing_lets_more_run_at_once_than_their_lengths_would() -> None:
    runner = EchoKind(ForkKind.SHARED, page_size=16)
    steps = steps_on(runner, kv_tokens=600)
    steps.add(*(ask(f"r{i}", SYSTEM + [65 + i] * 40) for i in range(4)))
    while len(steps.batches[-1:] and steps.batches[-1]) < 4:
        steps.step()
    assert steps.stepper.scheduler.num_reserved == 304 + 3 * (352 - 288) + 48
    assert runner.num_used <= 600
    steps.drain()


def test_no_space_takes_what_is_cached_before_what_runs() -> None:
    runner = EchoKind(ForkKind.COPIED)
    steps = steps_on(runner)
    for number in range(3):
        steps.run(ask(f"r{number}", [65 + number] * 50))
    runner.num_refusals = 3
    [answer] = steps.run(ask("a", SYSTEM[:100]))
    assert answer.error is None
    assert steps.stepper.stats().preemptions_total == 0
    assert steps.stepper.scheduler.kv.num_cached_handles == 1


class Modest(EchoKind):
    """Bears little KV that nobody needs."""

    def open(self, spec: RunnerSpec) -> Opened:
        facts, capabilities = super().open(spec)
        return Opened(facts, replace(capabilities, max_cached_tokens=200))


def test_more_than_a_runner_bears_is_not_kept() -> None:
    steps = steps_on(Modest(ForkKind.SHARED))
    for number in range(6):
        steps.run(ask(f"r{number}", SYSTEM[:60] + [65 + number] * 50))
        assert steps.stepper.stats().kv_cached_tokens <= 200
    # What they share counts once.
    assert steps.stepper.scheduler.kv.num_cached_handles == 2
