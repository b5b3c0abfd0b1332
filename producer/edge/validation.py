"""Values of a caller as a model, or a refusal that names the field."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from schemas.errors import ErrorCode, ServingError

Body = TypeVar("Body", bound=BaseModel)


def validated(model: type[Body], values: dict[str, Any]) -> Body:
    """Raises ServingError (400) that names the first field that is wrong, and says nothing of its value."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise refusal_of(error, model) from None


def refusal_of(error: ValidationError, model: type[BaseModel]) -> ServingError:
    """The first thing that is wrong, in words for the caller."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    param = ".".join(str(step) for step in first["loc"] if step != "[key]")
    code, text = ErrorCode.INVALID_PARAMETER, first["msg"]
    if first["type"] == "missing":
        text = "is required"
    elif first["type"] == "extra_forbidden":
        code, text = ErrorCode.UNKNOWN_PARAMETER, f"is not known here; known are {', '.join(model.model_fields)}"
    elif text.startswith("Input "):
        text = text.removeprefix("Input ")
    else:
        words = text.removeprefix("Value error, ")
        text = f"is not valid: {words[:1].lower()}{words[1:]}"
    return ServingError(code, f"'{param[:100]}' {text}.", param=param or None)
