"""The most that was admitted within any rolling window."""

from collections.abc import Iterable


def worst_window(admitted: Iterable[tuple[float, int]], window_s: float) -> int:
    """`admitted` are times and amounts; a window holds its beginning and not its end."""
    ordered = sorted(admitted)
    worst = total = first = 0
    for at, amount in ordered:
        total += amount
        while at - ordered[first][0] >= window_s:
            total -= ordered[first][1]
            first += 1
        worst = max(worst, total)
    return worst
