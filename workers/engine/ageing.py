"""Nobody waits for ever: who has waited long is treated as the next class."""

from workers.engine.sequence import Sequence

# A sequence that has waited so long, for a place or for its prompt, rises by one class, and by one more each time that
# this passes again.
AGE_S = 30.0


def aged_rank(sequence: Sequence, now: float) -> int:
    """The rank of the class that a sequence is treated as; it never grants what only the class itself may do."""
    return max(0, sequence.priority.rank - int((now - sequence.waits_since) / AGE_S))
