"""A JSON answer."""

from typing import Any

from starlette.responses import Response

from producer.edge.errors import dumps


def json_response(value: Any, headers: dict[str, str] | None = None, *, status: int = 200) -> Response:
    return Response(dumps(value), status, media_type="application/json", headers=headers)
