"""The engine's prefix cache on every runner: it saves what it should, and the answers stay what they were."""

from dataclasses import replace

import pytest

from schemas.requests import SamplingParams, TextPrompt
from tests.conformance.cases import RunnerCase
from tests.conformance.driver import MAX_LOGIT_GAP, Driver
from tests.conformance.test_runner import TEXTS
from workers.engine.config import EngineConfig
from workers.engine.messages import Completed, EngineRequest, Errored, Tokens
from workers.engine.stepper import Stepper
from workers.kv.audit import audit
from workers.kv.config import KvConfig
from workers.runners.base import ForkKind

WORDS = " ".join(TEXTS).split()


class Generation:
    """A stepper on the case's runner. `ask` runs requests to their end, all of them beginning at once."""

    def __init__(self, case: RunnerCase, *, is_cached: bool = True, **limits: int) -> None:
        self.runner = case.create()
        self.opened = self.runner.open(replace(case.spec, **limits))
        self.stepper = Stepper(self.runner, self.opened, EngineConfig(kv=KvConfig(is_cached=is_cached)))
        self.cached_tokens: list[int] = []

    def ask(self, *prompts: str, num_tokens: int) -> list[list[int]]:
        params = SamplingParams(seed=1, temperature=0.0, max_tokens=num_tokens, ignore_eos=True)
        for number, prompt in enumerate(prompts):
            self.stepper.add(EngineRequest(str(number), TextPrompt(prompt), params))
        return self._run(len(prompts))

    def warm(self, prompt: str) -> None:
        params = SamplingParams(seed=1, max_tokens=1)
        self.stepper.add(EngineRequest("0", TextPrompt(prompt), params, is_prefill_only=True))
        assert self._run(1) == [[]]

    def _run(self, num_answers: int) -> list[list[int]]:
        answers: list[list[int]] = [[] for _ in range(num_answers)]
        while self.stepper.has_work:
            plan = self.stepper.schedule()
            self.stepper.commit(plan, self.stepper.forward(plan))
            for emission in self.stepper.take_emissions():
                assert not isinstance(emission, Errored), emission
                if isinstance(emission, Tokens | Completed):
                    answers[int(emission.request_id)] += emission.token_ids
                if isinstance(emission, Completed):
                    self.cached_tokens.append(emission.usage.cached_tokens)
        assert audit(self.stepper.scheduler.kv, self.runner) == []
        return answers

    def tokens(self, text: str) -> list[int]:
        tokenizer = self.opened.facts.tokenizer
        return tokenizer.encode(text, add_bos=tokenizer.bos_id is not None, parse_special=True)


def test_a_prefix_that_many_share_at_once_is_computed_once(case: RunnerCase) -> None:
    prefix = " ".join((WORDS * 9)[: case.prefix_words])
    prompts = [f"{prefix} Request {number}: {TEXTS[number % 3][:60]}" for number in range(case.num_sharing)]
    running = Generation(case, sequences=case.num_sharing, context=4096 if case.name.startswith("echo") else 1024)
    if running.opened.capabilities.fork is ForkKind.NONE:
        pytest.skip("the runner cannot fork")
    num_prefix = len(running.tokens(prefix))
    num_suffixes = sum(len(running.tokens(prompt)) - num_prefix for prompt in prompts)
    running.ask(*prompts, num_tokens=2)
    computed = running.stepper.stats().prompt_tokens_total
    running.runner.close()
    assert computed <= 1.2 * (num_prefix + num_suffixes)
    if running.opened.capabilities.exact_batching:
        assert computed <= num_prefix + num_suffixes
    assert len([count for count in running.cached_tokens if count >= num_prefix - 2]) == case.num_sharing - 1


def test_answers_with_the_cache_are_those_without(case: RunnerCase, driver: Driver) -> None:
    """A prompt that others share, then in full, then as the turn of a conversation; some at once."""
    is_slow = case.prompt_tokens < 60
    head, tail, other = TEXTS[0][: 80 if is_slow else 150], TEXTS[1][:40], TEXTS[2][:40]
    waves = [(head + tail,), (head + tail, head + other), (head + tail + other, head + other + tail, other)]
    waves = waves[:2] if is_slow else waves
    answers, plain = [], []
    for is_cached, into in ((True, answers), (False, plain)):
        running = Generation(case, is_cached=is_cached)
        for wave in waves:
            into += running.ask(*wave, num_tokens=4 if is_slow else 8)
        running.runner.close()
        assert any(running.cached_tokens) == is_cached
    prompts = [prompt for wave in waves for prompt in wave]
    if driver.capabilities.exact_batching:
        assert answers == plain
        return
    for prompt, answer in zip(prompts, answers, strict=True):
        handle = driver.create()
        tokenizer = driver.facts.tokenizer
        tokens = tokenizer.encode(prompt, add_bos=tokenizer.bos_id is not None, parse_special=True)
        rows = driver.feed(handle, tokens + answer)[len(tokens) - 1 : -1]
        gaps = rows.max(axis=1) - rows[range(len(answer)), answer]
        assert gaps.max() <= MAX_LOGIT_GAP
        driver.runner.release(handle)
    assert sum(one[0] == other[0] for one, other in zip(answers, plain, strict=True)) >= 0.9 * len(prompts)


def test_a_warmed_prompt_is_found_by_the_next_and_gone_when_cleared(case: RunnerCase) -> None:
    text = f"{TEXTS[0][:80]} "
    running = Generation(case)
    running.warm(text)
    assert running.stepper.stats().completion_tokens_total == 0
    running.ask(text + TEXTS[1][:20], num_tokens=1)
    warmed, found = running.cached_tokens
    assert (warmed, found > 0) == (0, True)
    cached = running.stepper.stats().kv_cached_tokens
    freed = running.stepper.clear_cache()
    assert (freed.tokens, running.stepper.stats().kv_cached_tokens) == (cached, 0)
    assert freed.entries > 0
    assert running.stepper.stats().prefix_evictions_total == 0
    running.stepper.check_integrity()
    running.ask(text + TEXTS[1][:20], num_tokens=1)
    assert running.cached_tokens[-1] == 0
    running.runner.close()
