"""Bodies of administrative calls: small JSON objects, checked against a model."""

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from producer.edge.body import read_json
from producer.edge.guard import services_of
from schemas.errors import ErrorCode, ServingError

Body = TypeVar("Body", bound=BaseModel)


async def read_as(request: Request, model: type[Body], *, is_optional: bool = False) -> Body:
    """The body as `model`; with `is_optional` an absent one counts as {}. Raises ServingError (400, 413)."""
    if is_optional and request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers:
        return validated(model, {})
    config = services_of(request).config
    values, _ = await read_json(request, config.max_body_bytes, config.body_timeout_s)
    return validated(model, values)


def validated(model: type[Body], values: dict[str, Any]) -> Body:
    """Raises ServingError (400) that names the first field that is wrong, and says nothing of its value."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        param = ".".join(str(step) for step in first["loc"])
        code, text = ErrorCode.INVALID_PARAMETER, first["msg"]
        if first["type"] == "missing":
            text = "is required"
        elif first["type"] == "extra_forbidden":
            code, text = ErrorCode.UNKNOWN_PARAMETER, f"is not known here; known are {', '.join(model.model_fields)}"
        raise ServingError(code, f"'{param}': {text}.", param=param or None) from None
