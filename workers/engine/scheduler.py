"""Who computes how many tokens in the next step.

waiting --admit (KV is to be had)--> running --finish--> ended
   ^                                    |
   +------ displace (gives way) --------+
   +------ preempt (no space) ----------+

Whose KV is where is `kv`'s affair: the scheduler asks it for a sequence's and gives it back. That of a sequence which
gave way is cached there as any other, and may be parked in host memory besides.
"""

import time
from bisect import insort
from collections.abc import Callable

from schemas.requests import PriorityClass
from workers.engine.ageing import aged_rank
from workers.engine.batch import StepPlan
from workers.engine.config import FairnessConfig
from workers.engine.fairness import Fairness
from workers.engine.pace import StepPace
from workers.engine.sequence import Sequence, SequenceState
from workers.engine.waiting import WaitingQueue
from workers.kv.audit import audit
from workers.kv.config import KvConfig
from workers.kv.parking import Parking
from workers.kv.prefix_cache import Grant, PrefixCache
from workers.runners.base import Capabilities, ModelRunner


class Scheduler:
    """Owns the two queues. Used by the engine thread alone.

    Every running sequence has all the KV it can need reserved, so that `NO_SPACE` stays rare. `running` is kept in
    order of service: class, then arrival. One of them without a handle waits for the prompt of another.
    """

    def __init__(
        self,
        runner: ModelRunner,
        capabilities: Capabilities,
        max_batch_tokens: int,
        fairness: FairnessConfig,
        kv: KvConfig,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner = runner
        self._max_batch_tokens = max_batch_tokens
        # As many as can each have a token and a row of logits in every step: so a decode never waits for another.
        self.slots = min(
            capabilities.max_running or capabilities.max_handles,
            capabilities.max_handles,
            capabilities.max_logit_rows,
            max_batch_tokens,
        )
        self.parking = Parking(runner, capabilities.can_export, fairness.parked_kv_bytes)
        self.kv = PrefixCache(runner, capabilities, kv, self.parking)
        self.pace = StepPace()
        self.waiting = WaitingQueue(clock)
        self.fairness = Fairness(fairness)
        self._clock = clock
        self.running: list[Sequence] = []
        self._is_short = False

    @property
    def has_work(self) -> bool:
        return bool(self.running) or len(self.waiting) > 0

    @property
    def is_blocked(self) -> bool:
        """Whether someone waits although a slot is free: for KV."""
        return len(self.waiting) > 0 and len(self.running) < self.slots

    @property
    def num_reserved(self) -> int:
        """KV tokens set aside for running sequences, those that several share once."""
        return self.kv.num_reserved

    def add(self, sequence: Sequence) -> None:
        self.waiting.push(sequence)

    def schedule(self) -> StepPlan:
        """Admit what fits, then share one budget: a token for every decode, the rest to prompts in order of service.

        The plan is empty only when nothing runs.
        """
        plan = self._next_plan()
        if not plan.items and self.has_work:
            # Those whom the others wait for gave way in this very step: now they start with what is there.
            plan = self._next_plan()
        return plan

    def finish(self, sequence: Sequence, *, is_kept: bool = True) -> None:
        """End a sequence in whatever state it is and give back what it holds. Idempotent. Not `is_kept`: nobody may
        use its KV again.
        """
        if sequence.state is SequenceState.WAITING:
            self.waiting.remove(sequence)
            self.parking.forget(sequence)
        elif sequence.state is SequenceState.RUNNING:
            self._give_up(sequence, is_kept=is_kept)
        sequence.state = SequenceState.ENDED

    def preempt(self, sequence: Sequence, *, is_kept: bool = True) -> None:
        """Take a running sequence's KV; it will catch up with its known tokens from what is still there then."""
        self._give_up(sequence, is_kept=is_kept)
        self.fairness.note_preempted(sequence)
        self._return(sequence)

    def faults(self) -> list[str]:
        """What does not balance in the books of the KV and of the queues, one line each."""
        return [*audit(self.kv, self._runner), *self.parking.faults(self.waiting)]

    def num_places(self, priority: PriorityClass) -> int:
        """How many more of a class could start in the place of others, as far as places alone decide.

        As many as have places may have given way, so that what is parked, and who waits in here unseen, is bounded.
        Safe from any thread.
        """
        taken = self.fairness.num_giving_way(priority, list(self.running)) - self.waiting.num_before(priority)
        return max(0, min(taken, 2 * self.slots - len(self.running) - len(self.waiting)))

    def shrink(self, plan: StepPlan) -> Sequence | None:
        """Make room, or the next attempt smaller, after `NO_SPACE`. Returns a sequence only when there is no room even
        for it alone.

        What is cached goes first, then the chunk served last. When one item is left, the KV of the sequence served last
        is taken, and nobody is admitted until some other sequence has ended: each attempt has less to fit or more room.
        """
        if self.kv.evict():
            return None
        if len(plan.items) > 1:
            plan.drop_last()
            return None
        alone = plan.items[0].sequence
        others = (sequence for sequence in reversed(self.running) if sequence is not alone)
        victim = next((sequence for sequence in others if sequence.handle is not None), None)
        if victim is None:
            return alone
        self.preempt(victim)
        self._is_short = True
        return None

    def _next_plan(self) -> StepPlan:
        if self.kv.num_waiting:
            self._settle()
        self._admit()
        plan = StepPlan()
        behind = []
        for sequence in self.running:
            if sequence.handle is None:
                continue
            if sequence.num_uncomputed == 1:
                plan.add(sequence, 1)
            else:
                behind.append(sequence)
        if behind:
            self._share(plan, behind)
        return plan

    def _admit(self) -> None:
        if self._is_short and self.running:
            return
        displaced: list[Sequence] = []
        while (sequence := self.waiting.head()) is not None:
            if not self._start(sequence, displaced):
                break
            self.waiting.remove(sequence)
            self.fairness.note_started(sequence)
            sequence.waits_since = self._clock()
            sequence.state = SequenceState.RUNNING
            insort(self.running, sequence, key=_order)
        # Not before: who gives way takes nobody's place in the same step.
        for victim in displaced:
            put = self.waiting.push if self.fairness.note_displaced(victim) else self.waiting.push_back
            put(victim)

    def _start(self, sequence: Sequence, displaced: list[Sequence]) -> bool:
        """Get a sequence a place and KV, from others if they have to give way; False when it has to wait."""
        if len(self.running) < self.slots and self.kv.acquire(sequence) is not Grant.NONE:
            return True
        victims = self.fairness.victims(
            sequence.priority,
            aged_rank(sequence, self._clock()),
            self.running,
            lambda victims: len(self.running) - len(victims) < self.slots and self.kv.can_fit(sequence, victims),
        )
        for victim in victims:
            self.parking.park(victim, self.pace.prefill_s)
            self._give_up(victim, is_kept=True)
            victim.num_computed = 0
            victim.state = SequenceState.WAITING
        displaced += victims
        return bool(victims) and self.kv.acquire(sequence) is not Grant.NONE

    def _settle(self) -> None:
        """Give their KV to those whose beginning is computed; those for whom it does not come queue again."""
        for sequence in [sequence for sequence in self.running if sequence.handle is None]:
            if self.kv.settle(sequence) is Grant.NONE:
                self.running.remove(sequence)
                self._return(sequence)

    def _share(self, plan: StepPlan, behind: list[Sequence]) -> None:
        budget = self._max_batch_tokens - plan.num_decodes
        if plan.num_decodes:
            if self.pace.wants_decodes_only(plan.num_decodes):
                return
            num_missing = sum(sequence.num_uncomputed for sequence in behind)
            budget = self.pace.prefill_cap(budget, plan.num_decodes, len(behind), num_missing)
        now = self._clock()
        behind.sort(key=lambda sequence: (aged_rank(sequence, now), sequence.arrival))
        for sequence in behind:
            count = min(sequence.num_uncomputed, budget)
            if count == 0:
                return
            plan.add(sequence, count)
            budget -= count

    def _give_up(self, sequence: Sequence, *, is_kept: bool) -> None:
        self.kv.retire(sequence, is_kept=is_kept)
        self.running.remove(sequence)
        self._is_short = False

    def _return(self, sequence: Sequence) -> None:
        sequence.num_computed = 0
        sequence.state = SequenceState.WAITING
        self.waiting.push_back(sequence)


def _order(sequence: Sequence) -> tuple[int, int]:
    return sequence.order
