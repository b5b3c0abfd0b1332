"""Who computes how many tokens in the next step.

waiting --admit (a handle is free, KV can be reserved)--> running --finish--> ended
   ^                                                         |
   +-------------------- preempt (KV given up) --------------+
"""

from bisect import insort

from workers.engine.batch import StepPlan
from workers.engine.pace import StepPace
from workers.engine.sequence import Sequence, SequenceState
from workers.engine.waiting import WaitingQueue
from workers.runners.base import Capabilities, ModelRunner


class Scheduler:
    """Owns the two queues, the handles and the reserved KV. Used by the engine thread alone.

    Every running sequence has all the KV it can need reserved, so that `NO_SPACE` stays rare. `running` is kept in
    order of service: class, then arrival.
    """

    def __init__(self, runner: ModelRunner, capabilities: Capabilities, max_batch_tokens: int) -> None:
        self._runner = runner
        self._kv_budget = capabilities.kv_token_budget
        self._max_batch_tokens = max_batch_tokens
        # As many as can each have a token and a row of logits in every step: so a decode never waits for another.
        self.slots = min(capabilities.max_handles, capabilities.max_logit_rows, max_batch_tokens)
        self.pace = StepPace()
        self.waiting = WaitingQueue()
        self.running: list[Sequence] = []
        self.num_reserved = 0
        self.num_preemptions = 0
        self._is_short = False

    @property
    def has_work(self) -> bool:
        return bool(self.running) or self.waiting.head() is not None

    @property
    def is_blocked(self) -> bool:
        """Whether someone waits although a slot is free: for KV."""
        return self.waiting.head() is not None and len(self.running) < self.slots

    def add(self, sequence: Sequence) -> None:
        self.waiting.push(sequence)

    def schedule(self) -> StepPlan:
        """Admit what fits, then share one budget: a token for every decode, the rest to prompts in order of service.

        The plan is empty only when nothing runs.
        """
        self._admit()
        plan = StepPlan()
        behind = []
        for sequence in self.running:
            if sequence.num_uncomputed == 1:
                plan.add(sequence, 1)
            else:
                behind.append(sequence)
        if behind:
            self._share(plan, behind)
        return plan

    def finish(self, sequence: Sequence) -> None:
        """End a sequence in whatever state it is and free what it holds. Idempotent."""
        if sequence.state is SequenceState.WAITING:
            self.waiting.remove(sequence)
        elif sequence.state is SequenceState.RUNNING:
            self._give_up(sequence)
        sequence.state = SequenceState.ENDED

    def preempt(self, sequence: Sequence) -> None:
        """Take a running sequence's KV; it will catch up with its known tokens from the beginning."""
        self._give_up(sequence)
        self.num_preemptions += 1
        sequence.num_computed = 0
        sequence.state = SequenceState.WAITING
        self.waiting.push_back(sequence)

    def shrink(self, plan: StepPlan) -> Sequence | None:
        """Make the next attempt smaller after `NO_SPACE`. Returns a sequence only when there is no room even for it
        alone.

        The chunk served last goes first. When one item is left, the KV of the sequence served last is taken, and nobody
        is admitted until some other sequence has ended: each attempt has less to fit or more room.
        """
        if len(plan.items) > 1:
            plan.drop_last()
            return None
        alone = plan.items[0].sequence
        victim = next((sequence for sequence in reversed(self.running) if sequence is not alone), None)
        if victim is None:
            return alone
        self.preempt(victim)
        self._is_short = True
        return None

    def _admit(self) -> None:
        if self._is_short and self.running:
            return
        while (sequence := self.waiting.head()) is not None:
            if len(self.running) >= self.slots or self.num_reserved + sequence.num_reserved > self._kv_budget:
                return
            handle = self._runner.create()
            if handle is None:
                return
            self.waiting.pop()
            sequence.handle = handle
            sequence.state = SequenceState.RUNNING
            self.num_reserved += sequence.num_reserved
            insort(self.running, sequence, key=_order)

    def _share(self, plan: StepPlan, behind: list[Sequence]) -> None:
        budget = self._max_batch_tokens - plan.num_decodes
        if plan.num_decodes:
            if self.pace.wants_decodes_only(plan.num_decodes):
                return
            budget = self.pace.prefill_cap(budget, plan.num_decodes, len(behind))
        for sequence in behind:
            count = min(sequence.num_uncomputed, budget)
            if count == 0:
                return
            plan.add(sequence, count)
            budget -= count

    def _give_up(self, sequence: Sequence) -> None:
        assert sequence.handle is not None
        self._runner.release(sequence.handle)
        sequence.handle = None
        self.running.remove(sequence)
        self.num_reserved -= sequence.num_reserved
        self._is_short = False


def _order(sequence: Sequence) -> tuple[int, int]:
    return sequence.order
