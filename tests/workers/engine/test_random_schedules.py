"""Any order of submissions, cancellations, refusals and steps, over any kind of KV: every answer right, everything
given back, and at every moment each handle free, held by one sequence, or cached.
"""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from schemas.requests import PriorityClass, TokenPrompt
from tests.support.counts import full_or
from tests.support.echo_kinds import EchoKind
from tests.workers.engine.harness import Answer, Steps, request
from workers.engine.config import FairnessConfig
from workers.engine.fairness import MAX_PREEMPTIONS
from workers.engine.messages import EngineRequest, Resume
from workers.engine.sequence import SequenceState
from workers.kv.audit import audit
from workers.kv.config import CacheScope, Eviction, KvConfig
from workers.runners.base import ForkKind

SEQUENCES = 4
CONTEXT = 150
TEXT = [(7 * place * place + 3 * place) % 26 + 97 for place in range(CONTEXT)]

pytestmark = pytest.mark.timeout(full_or(1200, reduced=60))


class Schedules(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.requests: dict[str, EngineRequest] = {}
        self.cancelled: set[str] = set()
        self.wholes: dict[str, Answer] = {}
        self.cuts: dict[str, int] = {}
        self.has_refused = False
        self.now = 0.0

    @initialize(
        batch_tokens=st.sampled_from([4, 7, 64]),
        kv_tokens=st.sampled_from([160, 300, 480, 10_000]),
        seed=st.integers(0, 99),
        fork=st.sampled_from(ForkKind),
        page_size=st.sampled_from([None, 16]),
        spare=st.sampled_from([0, 3]),
        can_truncate=st.sampled_from([True, True, True, False]),
        scope=st.sampled_from(CacheScope),
        eviction=st.sampled_from(Eviction),
        is_cached=st.sampled_from([True, True, True, False]),
        is_preempting=st.booleans(),
        timeslice=st.sampled_from([0, 0, 3, 12]),
        parked_kv_bytes=st.sampled_from([0, 400, 2**20]),
    )
    def open(
        self,
        batch_tokens: int,
        kv_tokens: int,
        seed: int,
        fork: ForkKind,
        page_size: int | None,
        spare: int,
        can_truncate: bool,
        scope: CacheScope,
        eviction: Eviction,
        is_cached: bool,
        is_preempting: bool,
        timeslice: int,
        parked_kv_bytes: int,
    ) -> None:
        self.source = f"echo:random?seed={seed}"
        self.runner = EchoKind(fork, page_size=page_size, spare=spare, can_truncate=can_truncate)
        self.num_handles = SEQUENCES + spare
        self.steps = Steps(
            f"{self.source}&kv_tokens={kv_tokens}",
            runner=self.runner,
            context=CONTEXT,
            sequences=SEQUENCES,
            batch_tokens=batch_tokens,
            kv=KvConfig(is_cached, scope, eviction),
            fairness=FairnessConfig(is_preempting, timeslice, parked_kv_bytes),
            clock=lambda: self.now,
        )
        self.timeslice = timeslice
        self.parked_kv_bytes = parked_kv_bytes
        self.scheduler = self.steps.stepper.scheduler

    @rule(
        shared=st.integers(0, 110),
        own=st.integers(1, 20),
        max_tokens=st.integers(1, 60),
        priority=st.sampled_from(PriorityClass),
        temperature=st.sampled_from([0.0, 0.9]),
        resume=st.integers(0, 30),
        tenant=st.sampled_from(["a", "b"]),
    )
    def submit(self, shared: int, own: int, resume: int, **params: object) -> None:
        """A prompt that begins as others do, perhaps with the start of an answer that an earlier run gave."""
        prompt = TEXT[:shared] + [65 + len(self.requests) % 26] * own
        self.take(prompt, resume, params)

    @rule(which=st.integers(0, 50), max_tokens=st.integers(1, 30), own=st.integers(0, 10))
    def follow(self, which: int, max_tokens: int, own: int) -> None:
        """The next turn of a conversation: an earlier prompt, its answer, and something new."""
        if self.requests:
            earlier = list(self.requests.values())[which % len(self.requests)]
            assert isinstance(earlier.prompt, TokenPrompt)
            prompt = [*earlier.prompt.token_ids, *self.wholes[earlier.request_id].token_ids, *[48] * own]
            self.take(prompt[: CONTEXT - 20], 0, {"max_tokens": max_tokens, "tenant": earlier.tenant})

    def take(self, prompt: list[int], resume: int, params: dict[str, object]) -> None:
        name = f"r{len(self.requests)}"
        whole = self.expected(request(name, TokenPrompt(tuple(prompt)), stop=("e ",), **params))
        cut = min(resume, len(whole.token_ids))
        self.wholes[name], self.cuts[name] = whole, cut
        resume_from = Resume(whole.token_ids[:cut], whole.pieces[:cut]) if cut else None
        self.requests[name] = request(name, TokenPrompt(tuple(prompt)), resume=resume_from, stop=("e ",), **params)
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

    @rule(seconds=st.floats(1, 100))
    def wait(self, seconds: float) -> None:
        """Those that wait grow older."""
        self.now += seconds

    @rule()
    def abort_a_pass(self) -> None:
        self.runner.num_aborts = 1
        self.steps.step()

    @rule(count=st.integers(1, 6))
    def refuse_passes(self, count: int) -> None:
        self.has_refused = True
        self.runner.num_refusals = count
        self.steps.step()

    @rule(which=st.integers(0, 5))
    def preempt(self, which: int) -> None:
        if self.scheduler.running:
            self.scheduler.preempt(self.scheduler.running[which % len(self.scheduler.running)])

    @rule(count=st.integers(1, 8))
    def evict(self, count: int) -> None:
        for _ in range(count):
            self.scheduler.kv.evict()

    @invariant()
    def books_balance(self) -> None:
        if not hasattr(self, "steps"):
            return
        running = self.scheduler.running
        assert audit(self.scheduler.kv, self.runner) == []
        assert self.runner.num_used <= self.scheduler.kv.num_reserved + self.scheduler.kv.num_cached
        num_held = sum(sequence.handle is not None for sequence in running)
        assert self.steps.free_handles == self.num_handles - num_held
        assert len(running) <= SEQUENCES
        assert [sequence.order for sequence in running] == sorted(sequence.order for sequence in running)
        assert all(sequence.state is SequenceState.RUNNING for sequence in running)
        waiting = list(self.scheduler.waiting)
        if not self.timeslice:
            assert [sequence.order for sequence in waiting] == sorted(sequence.order for sequence in waiting)
        assert self.scheduler.parking.num_bytes <= self.parked_kv_bytes
        for sequence in (*running, *waiting):
            assert sequence.num_preemptions <= (0 if sequence.priority is PriorityClass.HIGH else MAX_PREEMPTIONS)
        assert all(sequence.state is SequenceState.WAITING and sequence.handle is None for sequence in waiting)

    def expected(self, source: EngineRequest) -> Answer:
        [answer] = Steps(self.source, context=CONTEXT, kv=KvConfig(is_cached=False)).run(source)
        return answer

    def teardown(self) -> None:
        if not hasattr(self, "steps"):
            return
        self.steps.drain()
        for name, whole in self.wholes.items():
            answer = self.steps.answers[name]
            pieces = whole.pieces[: self.cuts[name]] + answer.pieces
            if name in self.cancelled or (self.has_refused and answer.error is not None):
                assert answer.reason is None
                assert pieces == whole.pieces[: len(pieces)]
            else:
                assert (pieces, answer.reason, answer.counts) == (whole.pieces, whole.reason, whole.counts)
        stats = self.steps.stepper.stats()
        assert (stats.parked, stats.parked_bytes) == (0, 0)
        assert self.scheduler.num_reserved == 0
        assert len(self.scheduler.waiting) == 0
        self.scheduler.kv.clear()
        assert (self.runner.num_used, self.scheduler.kv.num_cached_handles) == (0, 0)
        assert self.steps.free_handles == self.num_handles


TestSchedules = Schedules.TestCase
TestSchedules.settings = settings(
    max_examples=full_or(2000, reduced=60), stateful_step_count=full_or(40, reduced=25), deadline=None
)
