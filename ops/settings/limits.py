"""Limits as they are configured: `limits.tenants` and `limits.models` in YAML, and those of one key."""

from typing import Any

from pydantic import ValidationError

from ops.settings.kinds import BadValue, document
from schemas.policy import LimitSet

_FIELDS = ", ".join(LimitSet.model_fields)


def read_limits(value: Any) -> LimitSet:
    """The limits of one key, tenant or model: a map with any of LimitSet's fields."""
    if not isinstance(value, dict):
        raise BadValue(f"limits are a map with any of {_FIELDS}")
    try:
        return LimitSet.model_validate({str(name): limit for name, limit in value.items()}, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(step) for step in first["loc"])
        if first["type"] == "extra_forbidden":
            raise BadValue(f"unknown limit {field!r}; known are {_FIELDS}") from None
        raise BadValue(f"{field} is a whole number of at least 0") from None


def read_document(value: Any) -> tuple[tuple[str, LimitSet], ...]:
    """Limits by name, from a map `name: {requests_per_minute, …}`."""
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise BadValue
    return tuple((str(name), read_limits(limits)) for name, limits in value.items())


def _show(limits: tuple[tuple[str, LimitSet], ...]) -> str:
    return ", ".join(name for name, _ in limits)


DOCUMENT = document(read_document, "a map of limits by name, each with any of " + _FIELDS, _show)
