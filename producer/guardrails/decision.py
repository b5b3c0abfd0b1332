"""What a policy decides on a request. Anything that is not exactly this is no decision."""

from typing import Annotated, Any

import re2
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError, field_validator

from producer.guardrails.errors import NoDecision
from producer.guardrails.patterns import check_pattern, compile_pattern
from schemas.requests import PriorityClass

_REPLACEMENT = "[redacted]"
_MAX_REDACTIONS = 1000


class Pattern(BaseModel):
    """An RE2 expression."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pattern: StrictStr

    @field_validator("pattern")
    @classmethod
    def _usable(cls, pattern: str) -> str:
        check_pattern(pattern)
        return pattern


_Text = Annotated[StrictStr, Field(min_length=1, max_length=10_000)]


class Decision(BaseModel):
    """`redact`: texts, and patterns, that are replaced in the prompt by `replacement`. `max_tokens` caps each answer;
    `priority` lowers the class, and never raises it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    allow: StrictBool
    reason: Annotated[StrictStr, Field(max_length=500)] | None = None
    redact: Annotated[tuple[_Text | Pattern, ...], Field(max_length=_MAX_REDACTIONS)] = ()
    replacement: Annotated[StrictStr, Field(max_length=1000)] = _REPLACEMENT
    max_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    priority: PriorityClass | None = None

    @property
    def changes_nothing(self) -> bool:
        return not self.redact and self.max_tokens is None and self.priority is None

    def redacted(self, text: str) -> str:
        for each in self.redact:
            if isinstance(each, str):
                text = text.replace(each, self.replacement)
            else:
                text = _replace(each.pattern, self.replacement, text)
        return text


def read_decision(value: Any) -> Decision:
    """`true` and `false` are decisions without more. Raises NoDecision, naming the field that is wrong."""
    if isinstance(value, bool):
        return Decision(allow=value)
    if value is None:
        raise NoDecision("the decision is undefined")
    if not isinstance(value, dict):
        raise NoDecision(f"the decision is {_named(value)}, not an object or a boolean")
    try:
        return Decision.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"][:2])
        # Of names that are not ours nothing is repeated: they can hold parts of the prompt.
        if first["type"] == "extra_forbidden":
            raise NoDecision("the decision has a field that nobody knows") from None
        raise NoDecision(f"the decision's field '{place}' is not what it must be: {first['type']}") from None


def _replace(pattern: str, replacement: str, text: str) -> str:
    compiled: re2._Regexp = compile_pattern(pattern)
    return str(compiled.sub(lambda found: replacement, text))


def _named(value: Any) -> str:
    return {str: "a text", list: "a list", int: "a number", float: "a number"}.get(type(value), "no value of JSON")
