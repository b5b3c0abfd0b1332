"""Numbers as setting values, with their ranges."""

import math
from typing import Any, TypeVar

from ops.settings.kinds import BadValue, Kind

Number = TypeVar("Number", int, float)


def integer(minimum: int | None = None, maximum: int | None = None) -> Kind[int]:
    def read(value: Any) -> int:
        number = _read_int(value)
        return _in_range(number, minimum, maximum)

    return Kind("integer", f"a whole number{_range_text(minimum, maximum)}", read)


def seconds(minimum: float, maximum: float) -> Kind[float]:
    def read(value: Any) -> float:
        number = _read_float(value)
        return _in_range(number, minimum, maximum)

    return Kind("seconds", f"a number of seconds{_range_text(minimum, maximum)}", read, lambda value: f"{value:g}")


def fraction() -> Kind[float]:
    def read(value: Any) -> float:
        return _in_range(_read_float(value), 0.0, 1.0)

    return Kind("number", "a number from 0 to 1", read, lambda value: f"{value:g}")


def size_bytes(minimum: int, maximum: int) -> Kind[int]:
    """A number of bytes, or one with the suffix KiB, MiB or GiB."""
    units = {"kib": 2**10, "mib": 2**20, "gib": 2**30}

    def read(value: Any) -> int:
        factor = 1
        if isinstance(value, str) and value.strip()[-3:].lower() in units:
            value, factor = value.strip()[:-3], units[value.strip()[-3:].lower()]
        return _in_range(_read_int(value) * factor, minimum, maximum)

    return Kind("size", f"a number of bytes{_range_text(minimum, maximum)}, or with KiB, MiB, GiB", read)


def _read_int(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise BadValue
    try:
        return int(value.strip(), 10)
    except ValueError:
        raise BadValue from None


def _read_float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadValue
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise BadValue from None
    if not math.isfinite(number):
        raise BadValue
    return number


def _in_range(number: Number, minimum: float | None, maximum: float | None) -> Number:
    if (minimum is not None and number < minimum) or (maximum is not None and number > maximum):
        raise BadValue
    return number


def _range_text(minimum: float | None, maximum: float | None) -> str:
    match minimum, maximum:
        case None, None:
            return ""
        case _, None:
            return f" from {minimum:g}"
        case None, _:
            return f" up to {maximum:g}"
        case _:
            return f" from {_plain(minimum)} to {_plain(maximum)}"


def _plain(number: float | None) -> str:
    return f"{number:d}" if isinstance(number, int) else f"{number:g}"
