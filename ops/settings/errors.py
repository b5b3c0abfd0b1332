"""What can be wrong with a configuration: one line that names the key, where it was set, and what is allowed."""

from collections.abc import Iterable
from difflib import get_close_matches


class SettingsError(Exception):
    """A setting that cannot be used. `is_usage` marks a command line flag: the exit code is 2 instead of 3."""

    def __init__(self, message: str, *, is_usage: bool = False) -> None:
        super().__init__(message)
        self.is_usage = is_usage


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the known name most like `name`, or nothing. One that `name` begins comes first."""
    by_folded = {candidate.lower(): candidate for candidate in known}
    folded = name.lower()
    matches = [candidate for candidate in by_folded if candidate.startswith(f"{folded}_")]
    matches = matches or get_close_matches(folded, by_folded, n=1, cutoff=0.5)
    return f" (did you mean {by_folded[matches[0]]!r}?)" if matches else ""
