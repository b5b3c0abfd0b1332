"""Who is not asked for again for a while, because the next line would be refused like the last one."""

import time

from schemas.errors import ErrorCode, ServingError

_OF_OWNER = frozenset({ErrorCode.RATE_LIMITED, ErrorCode.BUDGET_EXCEEDED})
_FIRST_S = 0.5
_MOST_DOUBLINGS = 5
_LONGEST_S = 60.0
# Of those that only wait for their turn: when it comes, nothing else may be there to take it.
_LONGEST_TURN_S = 4.0
_NO_MODEL = ""


def delay_s(num_delivered: int, retry_after_s: float | None = None) -> float:
    """When a line comes again: later each time, at least when the refusal says so, and within a minute."""
    return min(max(_growing_s(num_delivered), retry_after_s or 0.0), _LONGEST_S)


def turn_delay_s(num_delivered: int) -> float:
    """The same for a line that steps aside so that its lane goes on."""
    return min(_growing_s(num_delivered), _LONGEST_TURN_S)


def _growing_s(num_delivered: int) -> float:
    growing_s: float = _FIRST_S * 2 ** min(num_delivered - 1, _MOST_DOUBLINGS)
    return growing_s


class Pauses:
    """Times are monotonic. Bounded: what is over is forgotten, and the rest is of lines that were at hand."""

    def __init__(self) -> None:
        self._until: dict[tuple[str | None, str], float] = {}

    def note(self, owner: str, model: str, error: ServingError) -> None:
        """A line was refused, and others like it would be until then."""
        whose = owner if error.code in _OF_OWNER else None
        self._pause((whose, model), error.retry_after_s or _FIRST_S)

    def note_everything(self, pause_s: float) -> None:
        """No line can be finished for a while."""
        self._pause((None, _NO_MODEL), pause_s)

    def left_s(self, owner: str, model: str) -> float:
        """How long a line of the owner for the model would be refused; 0.0 when it would not."""
        now = time.monotonic()
        names = ((owner, model), (None, model), (None, _NO_MODEL))
        return max(0.0, max(self._until.get(name, now) for name in names) - now)

    def _pause(self, name: tuple[str | None, str], pause_s: float) -> None:
        now = time.monotonic()
        self._until = {each: until for each, until in self._until.items() if until > now}
        self._until[name] = now + min(pause_s, _LONGEST_S)
