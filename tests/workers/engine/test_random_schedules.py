"""Any order of submissions, cancellations and steps: every answer right, everything given back."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from schemas.requests import PriorityClass
from tests.support.counts import full_or
from tests.workers.engine.harness import Answer, Steps, request
from workers.engine.messages import EngineRequest, Resume
from workers.engine.sequence import SequenceState

SEQUENCES = 4

pytestmark = pytest.mark.timeout(full_or(600, reduced=60))


class Schedules(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.requests: dict[str, EngineRequest] = {}
        self.cancelled: set[str] = set()
        self.wholes: dict[str, Answer] = {}
        self.cuts: dict[str, int] = {}

    @initialize(
        batch_tokens=st.sampled_from([4, 7, 64]), kv_tokens=st.sampled_from([150, 300, 10_000]), seed=st.integers(0, 99)
    )
    def open(self, batch_tokens: int, kv_tokens: int, seed: int) -> None:
        self.source = f"echo:random?seed={seed}"
        self.steps = Steps(
            f"{self.source}&kv_tokens={kv_tokens}", context=150, sequences=SEQUENCES, batch_tokens=batch_tokens
        )

    @rule(
        size=st.integers(1, 120),
        max_tokens=st.integers(1, 60),
        priority=st.sampled_from(PriorityClass),
        temperature=st.sampled_from([0.0, 0.9]),
        resume=st.integers(0, 30),
    )
    def submit(self, size: int, max_tokens: int, priority: PriorityClass, temperature: float, resume: int) -> None:
        name = f"r{len(self.requests)}"
        params = {"priority": priority, "max_tokens": max_tokens, "temperature": temperature, "stop": ("e ",)}
        whole = self.expected(request(name, "p" * size, **params))
        cut = min(resume, len(whole.token_ids))
        self.wholes[name], self.cuts[name] = whole, cut
        resume_from = Resume(whole.token_ids[:cut], whole.pieces[:cut]) if cut else None
        self.requests[name] = request(name, "p" * size, resume=resume_from, **params)
        self.steps.add(self.requests[name])

    @rule(which=st.integers(0, 50))
    def cancel(self, which: int) -> None:
        if self.requests:
            name = list(self.requests)[which % len(self.requests)]
            if not self.steps.answers[name].is_over:
                self.cancelled.add(name)
            self.steps.cancel(name)

    @rule(count=st.integers(1, 12))
    def step(self, count: int) -> None:
        for _ in range(count):
            self.steps.step()

    @invariant()
    def books_balance(self) -> None:
        if not hasattr(self, "steps"):
            return
        scheduler = self.steps.stepper.scheduler
        running = scheduler.running
        assert scheduler.num_reserved == sum(sequence.num_reserved for sequence in running)
        assert scheduler.num_reserved <= self.steps.opened.capabilities.kv_token_budget
        assert self.steps.free_handles == SEQUENCES - len(running)
        assert [sequence.order for sequence in running] == sorted(sequence.order for sequence in running)
        for sequence in running:
            assert sequence.state is SequenceState.RUNNING
            assert sequence.handle is not None
            assert self.steps.runner.length(sequence.handle) == sequence.num_computed
        assert all(sequence.state is SequenceState.WAITING for sequence in scheduler.waiting)

    def expected(self, source: EngineRequest) -> Answer:
        [answer] = Steps(self.source, context=150).run(source)
        return answer

    def teardown(self) -> None:
        if not hasattr(self, "steps"):
            return
        self.steps.drain()
        for name, whole in self.wholes.items():
            answer = self.steps.answers[name]
            pieces = whole.pieces[: self.cuts[name]] + answer.pieces
            if name in self.cancelled:
                assert not answer.is_over
                assert pieces == whole.pieces[: len(pieces)]
            else:
                assert (pieces, answer.reason, answer.usage) == (whole.pieces, whole.reason, whole.usage)
        assert self.steps.free_handles == SEQUENCES
        assert self.steps.stepper.scheduler.num_reserved == 0
        assert len(self.steps.stepper.scheduler.waiting) == 0


TestSchedules = Schedules.TestCase
TestSchedules.settings = settings(
    max_examples=full_or(200, reduced=30), stateful_step_count=full_or(40, reduced=20), deadline=None
)
