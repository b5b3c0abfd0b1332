"""Reading the body of an administrative change."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from producer.edge.body import read_json
from producer.edge.errors import invalid
from producer.edge.services import Services
from schemas.errors import ErrorCode, ServingError

Body = TypeVar("Body", bound=BaseModel)


async def read_body_as(request: Request, services: Services, model: type[Body]) -> Body:
    """Raises ServingError (400) that names the field, 413; ClientLeft."""
    values, _ = await read_json(request, services.config.max_body_bytes, services.config.body_timeout_s)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _invalid_field(error) from None


def _invalid_field(error: ValidationError) -> ServingError:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    steps = [str(step) for step in first["loc"] if step != "[key]"]
    field = ".".join(steps)
    if first["type"] == "extra_forbidden":
        return ServingError(ErrorCode.UNKNOWN_PARAMETER, f"There is no field '{field}' here.", param=field)
    text = first["msg"].removeprefix("Input ")
    return invalid(f"'{field}' {text[:1].lower() + text[1:]}.", field)
