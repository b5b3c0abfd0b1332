"""Who gives way to whom once every place is taken."""

from collections.abc import Callable, Collection

from schemas.requests import PriorityClass
from workers.engine.config import FairnessConfig
from workers.engine.sequence import Sequence

# Back from a preemption, a sequence generates so much before it may be a victim again, and so often it is one at most.
# Together they bound what preemption costs: a request is computed at most 1 + MAX_PREEMPTIONS times.
MIN_RUN_TOKENS = 32
MAX_PREEMPTIONS = 3


class Fairness:
    """Decides, and changes nothing. Used by the engine thread alone.

    Preemption: a newcomer of class high takes the place of a strictly lower class. Only the class itself counts, not
    the one that a sequence is treated as for its age: so nobody that preempts can be preempted, and a place changes
    hands once. Yield: a sequence that has had its timeslice gives way to its class and those above.
    """

    def __init__(self, config: FairnessConfig) -> None:
        self._config = config
        self.num_preemptions = 0
        self.num_yields = 0
        self.num_resumes = 0

    def victims(
        self,
        priority: PriorityClass,
        rank: int,
        running: Collection[Sequence],
        suffice: Callable[[Collection[Sequence]], bool],
    ) -> list[Sequence]:
        """As few as make the room a newcomer needs, by `suffice`; none when all that may be asked do not. `rank`: of
        the class that the newcomer is treated as.

        The lowest class goes first; in it who has had a timeslice, the longest first, then the latest arrival.
        """
        candidates = [sequence for sequence in running if self._gives_way(sequence, priority, rank)]
        if not candidates:
            return []
        candidates.sort(key=self._order, reverse=True)
        chosen: list[Sequence] = []
        for candidate in candidates:
            if suffice(chosen):
                break
            chosen.append(candidate)
        if not suffice(chosen):
            return []
        for victim in tuple(chosen):
            without = [other for other in chosen if other is not victim]
            if suffice(without):
                chosen = without
        return chosen

    @property
    def is_on(self) -> bool:
        """Whether anybody may ever have to give way."""
        return self._config.is_on

    def num_giving_way(self, priority: PriorityClass, running: Collection[Sequence]) -> int:
        """How many of the running would give way to newcomers of a class."""
        return sum(self._gives_way(sequence, priority, priority.rank) for sequence in running)

    def note_displaced(self, victim: Sequence) -> bool:
        """Count a sequence that gives way; True when it has had its turn, and now goes behind those that wait."""
        if self._has_had_its_turn(victim):
            victim.is_displaced = True
            self.num_yields += 1
            return True
        self.note_preempted(victim)
        victim.num_preemptions += 1
        return False

    def note_preempted(self, sequence: Sequence) -> None:
        """Count one that lost its place, for a higher class or for lack of space."""
        sequence.is_displaced = True
        self.num_preemptions += 1

    def note_started(self, sequence: Sequence) -> None:
        sequence.slice_start = sequence.num_output
        self.num_resumes += sequence.is_displaced
        sequence.is_displaced = False

    def _gives_way(self, sequence: Sequence, priority: PriorityClass, rank: int) -> bool:
        if self._has_had_its_turn(sequence) and rank <= sequence.priority.rank:
            return True
        return (
            self._config.enable_preemption
            and priority is PriorityClass.HIGH
            and sequence.priority is not PriorityClass.HIGH
            and not _is_protected(sequence)
        )

    def _has_had_its_turn(self, sequence: Sequence) -> bool:
        return 0 < self._config.max_timeslice_tokens <= sequence.num_in_slice

    def _order(self, sequence: Sequence) -> tuple[int, bool, int]:
        has_had_its_turn = self._has_had_its_turn(sequence)
        by = sequence.num_in_slice if has_had_its_turn else sequence.arrival
        return sequence.priority.rank, has_had_its_turn, by


def _is_protected(sequence: Sequence) -> bool:
    if sequence.num_preemptions >= MAX_PREEMPTIONS:
        return True
    return sequence.num_preemptions > 0 and sequence.num_in_slice < MIN_RUN_TOKENS
