"""How much of a limit is left, as clients of OpenAI read it."""

from typing import NamedTuple


class Standing(NamedTuple):
    """`used` of `limit`; all of it is free again in `reset_s`, if nothing else comes."""

    limit: int
    used: int
    reset_s: float

    @property
    def remaining(self) -> int:
        return max(self.limit - self.used, 0)


def headers(name: str, standing: Standing) -> dict[str, str]:
    """`x-ratelimit-{limit,remaining,reset}-<name>`; `name` is requests or tokens."""
    return {
        f"x-ratelimit-limit-{name}": str(standing.limit),
        f"x-ratelimit-remaining-{name}": str(standing.remaining),
        f"x-ratelimit-reset-{name}": duration(standing.reset_s),
    }


def duration(seconds: float) -> str:
    """As OpenAI writes it: 12ms, 7.66s, 6m0s, 1h2m3s."""
    if seconds < 1:
        return f"{max(round(seconds * 1000), 0)}ms"
    if seconds < 60:
        return f"{round(seconds, 2):g}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + f"{minutes}m{rest}s"
