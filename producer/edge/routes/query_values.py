"""Values in the query of an address: known names only, each once, and of the right kind."""

import math
from collections.abc import Collection
from datetime import UTC, datetime

from starlette.requests import Request

from schemas.errors import ErrorCode, ServingError


class QueryValues:
    """Raises ServingError (400) that names the parameter."""

    def __init__(self, request: Request, allowed: Collection[str]) -> None:
        self._values: dict[str, str] = {}
        for name, value in request.query_params.multi_items():
            if name not in allowed:
                known = ", ".join(sorted(allowed))
                raise ServingError(
                    ErrorCode.UNKNOWN_PARAMETER, f"Unknown parameter {name[:64]!r}; known are {known}.", param=name[:64]
                )
            if name in self._values:
                raise invalid(name, "stands there twice")
            self._values[name] = value

    def text(self, name: str, max_length: int = 256) -> str | None:
        value = self._values.get(name)
        if value is not None and not 0 < len(value) <= max_length:
            raise invalid(name, f"must have from 1 to {max_length} characters")
        return value

    def choice(self, name: str, allowed: Collection[str]) -> str | None:
        value = self._values.get(name)
        if value is not None and value not in allowed:
            raise invalid(name, f"must be one of {', '.join(allowed)}")
        return value

    def integer(self, name: str, default: int, minimum: int, maximum: int) -> int:
        value = self._values.get(name)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit() and len(value) < 20 and minimum <= int(value) <= maximum):
            raise invalid(name, f"must be a whole number from {minimum} to {maximum}")
        return int(value)

    def time(self, name: str) -> float | None:
        """Unix seconds, or a date or time as in ISO 8601; UTC unless it says otherwise."""
        value = self._values.get(name)
        if value is None:
            return None
        try:
            found = float(value) if value.replace(".", "", 1).isdigit() else _iso_time(value)
            if math.isfinite(found) and 0 <= found < 1 << 33:
                return found
        except (ValueError, OverflowError):
            pass
        raise invalid(name, "must be a time such as 2027-01-31T12:00:00Z, or Unix seconds")


def _iso_time(text: str) -> float:
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def invalid(name: str, why: str) -> ServingError:
    return ServingError(ErrorCode.INVALID_PARAMETER, f"The parameter {name!r} {why}.", param=name)
