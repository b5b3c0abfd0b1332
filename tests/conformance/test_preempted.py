"""A sequence that gave way goes on as if it had not: every token it gets is the one its own tokens lead to."""

from collections import defaultdict

import numpy as np
import pytest

from schemas.requests import PriorityClass, SamplingParams, TokenPrompt
from tests.conformance.cases import RunnerCase
from tests.conformance.driver import Driver
from tests.conformance.test_runner import TEXTS
from workers.engine.config import EngineConfig, FairnessConfig
from workers.engine.messages import EngineRequest
from workers.engine.sequence import Sequence
from workers.engine.stepper import Stepper
from workers.kv.config import KvConfig
from workers.runners.base import FloatArray

NUM_PROMPT = 24
# Few, since not every backend is fast here.
NUM_TOKENS = 8
PARKED = FairnessConfig(enable_preemption=True)
RECOMPUTED = FairnessConfig(enable_preemption=True, parked_kv_bytes=0)


class Recorder:
    """Steps an engine, and keeps the logits that each token was drawn from."""

    def __init__(self, stepper: Stepper) -> None:
        self.stepper = stepper
        self.rows: dict[str, list[FloatArray]] = defaultdict(list)
        self.sequences: dict[str, Sequence] = {}

    def add(self, name: str, token_ids: list[int], priority: PriorityClass) -> None:
        sampling = SamplingParams(temperature=0.0, seed=1, max_tokens=NUM_TOKENS, ignore_eos=True)
        self.stepper.add(EngineRequest(name, TokenPrompt(tuple(token_ids)), sampling, priority))

    def step(self) -> None:
        plan = self.stepper.schedule()
        result = self.stepper.forward(plan)
        assert result.logits is not None
        self.sequences |= {item.sequence.request_id: item.sequence for item in plan.items}
        names = [item.sequence.request_id for item in plan.items if item.wants_logits]
        for name, row in zip(names, result.logits, strict=True):
            self.rows[name].append(row.copy())
        self.stepper.commit(plan, result)
        self.stepper.check_integrity()


@pytest.mark.parametrize("fairness", [PARKED, RECOMPUTED], ids=["parked", "recomputed"])
def test_preempted_equals_undisturbed(case: RunnerCase, fairness: FairnessConfig) -> None:
    runner = case.create()
    opened = runner.open(case.spec)
    driver = Driver(runner, opened)
    tokenizer = driver.facts.tokenizer
    prompts = [tokenizer.encode(text, add_bos=False, parse_special=False)[:NUM_PROMPT] for text in TEXTS]
    low, *highs = prompts
    config = EngineConfig(fairness=fairness, kv=KvConfig(is_cached=False))
    recorder = Recorder(Stepper(runner, opened, config))
    scheduler = recorder.stepper.scheduler
    recorder.add("low", low, PriorityClass.LOW)
    while len(recorder.rows["low"]) < 3:
        recorder.step()
    for number in range(scheduler.slots):
        recorder.add(f"high{number}", highs[number % len(highs)], PriorityClass.HIGH)
    recorder.step()
    assert "low" not in [sequence.request_id for sequence in scheduler.running]
    can_park = fairness is PARKED and driver.capabilities.can_export
    assert len(scheduler.parking) == can_park
    while recorder.stepper.has_work:
        recorder.step()
    stats = recorder.stepper.stats()
    assert (stats.preemptions_total, stats.resumes_total) == (1, 1)
    tokens = recorder.sequences["low"].token_ids
    assert len(tokens) == NUM_PROMPT + NUM_TOKENS
    handle = driver.create()
    driver.feed(handle, tokens[: NUM_PROMPT - 1])
    expected = driver.feed(handle, tokens[NUM_PROMPT - 1 : -1], chunk=1)
    driver.compare(expected, np.stack(recorder.rows["low"]))
    runner.close()
