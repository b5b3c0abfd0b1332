"""How long the classes of a queue have waited for a place: nobody waits for ever behind a higher class."""

import time
from dataclasses import dataclass
from typing import NamedTuple

from schemas.requests import PriorityClass

# A class whose head was not taken for so long is asked before the class above it, for one request, and before the one
# above that when this has passed again.
AGE_S = 30.0
# A class that is never reached, since all places go to higher ones, is looked at this often.
LOOK_EVERY_S = 5.0


class Turn(NamedTuple):
    """Ask `name` for at most `limit` requests; None: for as many as there is room for."""

    name: str
    limit: int | None


@dataclass(slots=True)
class _Age:
    priority: PriorityClass
    checked_at: float
    waits_since: float | None = None
    num_delivered: int = -1


class ClassAges:
    """What one worker knows of the consumers it pulls from. Reads no clock but its own: a consumer that has something,
    and has delivered nothing to anybody since the last look, has kept its head waiting that long.
    """

    def __init__(self, names: dict[str, PriorityClass]) -> None:
        now = time.monotonic()
        self._ages = {name: _Age(priority, now) for name, priority in names.items()}

    def turns(self, now: float) -> list[Turn]:
        """Whom to ask, in order: highest class first, and before that for one request who has waited too long."""
        turns = [(age.priority.rank, True, Turn(name, None)) for name, age in self._ages.items()]
        for name, age in self._ages.items():
            if age.waits_since is not None and (steps := int((now - age.waits_since) / AGE_S)):
                turns.append((max(0, age.priority.rank - steps), False, Turn(name, 1)))
        return [turn for _, _, turn in sorted(turns, key=lambda entry: entry[:2])]

    def note_served(self, name: str, now: float) -> None:
        """It gave a request: who is next there begins to wait now."""
        age = self._ages[name]
        age.checked_at = age.waits_since = now

    def note_empty(self, name: str, now: float) -> None:
        age = self._ages[name]
        age.checked_at, age.waits_since = now, None

    def unseen(self, now: float) -> list[str]:
        """Consumers that a look is due at: below the highest class, and neither asked nor looked at for a while."""
        return [
            name
            for name, age in self._ages.items()
            if age.priority is not PriorityClass.HIGH and now - age.checked_at >= LOOK_EVERY_S
        ]

    def note_look(self, name: str, now: float, *, num_unsettled: int, num_delivered: int) -> None:
        """What a consumer says of itself: how many it has that are not done, and the deliveries it has made in all.

        Those that were handed back are counted as if they ran, so all that runs may wait. At worst a turn finds
        nothing.
        """
        age = self._ages[name]
        if not num_unsettled:
            age.waits_since = None
        elif age.waits_since is None or num_delivered != age.num_delivered:
            age.waits_since = now
        age.checked_at, age.num_delivered = now, num_delivered

    def note_unknown(self, name: str, now: float) -> None:
        """The look failed; the next one is due in its time."""
        self._ages[name].checked_at = now
