"""Sizes and times as people read them."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def size_text(num_bytes: int | None) -> str:
    """`1.5 MiB`; empty for None."""
    if num_bytes is None:
        return ""
    size, unit = float(num_bytes), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if unit == 0 or size >= 100 else f"{size:.1f} {_UNITS[unit]}"


def age_text(seconds: float | None) -> str:
    """`90 s`, `5 min`, `2.5 h`, `7 d`; empty for None."""
    if seconds is None:
        return ""
    for limit, per, unit in ((120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / per:.3g} {unit}"
    return f"{seconds / 86400:.3g} d"
