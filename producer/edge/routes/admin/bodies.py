"""Bodies of administrative calls: small JSON objects, checked against a model."""

from typing import TypeVar

from pydantic import BaseModel
from starlette.requests import Request

from producer.edge.body import read_json
from producer.edge.guard import services_of
from producer.edge.validation import validated

Body = TypeVar("Body", bound=BaseModel)


async def read_as(request: Request, model: type[Body], *, is_optional: bool = False) -> Body:
    """The body as `model`; with `is_optional` an absent one counts as {}. Raises ServingError (400, 413)."""
    if is_optional and request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers:
        return validated(model, {})
    config = services_of(request).config
    values, _ = await read_json(request, config.max_body_bytes, config.body_timeout_s)
    return validated(model, values)
