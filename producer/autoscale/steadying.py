"""Up at once, down slowly: the highest of what was needed over a window."""

from collections import deque


class Steadying:
    """Times are monotonic seconds, never earlier than the last."""

    __slots__ = ("_first_at", "_highest", "_window_s")

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._first_at: float | None = None
        # Falling numbers: what is followed by a higher one decides nothing any more.
        self._highest: deque[tuple[float, int]] = deque()

    def note(self, at: float, needed: int) -> int:
        """Take in what is needed now; the most that was needed since `window_s` ago."""
        if self._first_at is None:
            self._first_at = at
        while self._highest and self._highest[-1][1] <= needed:
            self._highest.pop()
        self._highest.append((at, needed))
        while self._highest[0][0] < at - self._window_s:
            self._highest.popleft()
        return self._highest[0][1]

    def is_young(self, at: float) -> bool:
        """Whether less than a window is known, so that what was needed before is not."""
        return self._first_at is None or at - self._first_at < self._window_s

    def forget(self) -> None:
        """Nothing was needed: after a long idle time the past has no say."""
        self._highest.clear()
