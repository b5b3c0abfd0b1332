"""The OpenAPI 3.1 document, from the route table."""

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from producer.edge.openai_types import ErrorAnswer
from producer.edge.operation import Operation, Route
from schemas.errors import ErrorCode, error_kind

_REF = "#/components/schemas/{model}"
_SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same key."},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key", "description": "The same key."},
}
_PATH_PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")


def openapi_document(routes: Sequence[Route], version: str) -> dict[str, Any]:
    models = _models(routes)
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    paths: dict[str, Any] = {}
    for route in routes:
        path = _PATH_PARAMETER.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation_object(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "InferFlux", "version": version, "description": "OpenAI-compatible serving over NATS."},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": _SECURITY_SCHEMES,
        },
    }


def _tag(path: str) -> str:
    """Under which heading an operation is listed."""
    first, _, rest = path.removeprefix("/v1/").partition("/")
    if not path.startswith("/v1/"):
        return "server"
    return f"admin: {rest.partition('/')[0]}" if first == "admin" else first


def _models(routes: Sequence[Route]) -> list[type[BaseModel]]:
    models: dict[type[BaseModel], None] = {ErrorAnswer: None}
    for route in routes:
        operation = route.handler.operation
        for model in (operation.body, operation.returns, operation.stream):
            if isinstance(model, type):
                models[model] = None
    return list(models)


def _operation_object(route: Route) -> dict[str, Any]:
    operation = route.handler.operation
    described: dict[str, Any] = {
        "operationId": route.handler.name,
        "summary": operation.summary,
        "tags": [_tag(route.path)],
        "responses": _responses(operation),
        # Alternatives: any of the headers, with a key that has any of the scopes.
        "security": [{name: [scope]} for scope in sorted(operation.scopes) for name in _SECURITY_SCHEMES],
        "x-inferflux-scopes": sorted(operation.scopes),
    }
    if names := _PATH_PARAMETER.findall(route.path):
        described["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": _json(operation.body)}
    return described


def _responses(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if isinstance(operation.returns, str):
        content = {operation.returns: {"schema": {"type": "string"}}}
    elif operation.returns is not None:
        content = _json(operation.returns)
    if operation.stream is not None:
        # The schema is that of the data of one event.
        content["text/event-stream"] = {"schema": {"$ref": _REF.format(model=operation.stream.__name__)}}
    responses: dict[str, Any] = {"200": {"description": "OK", "content": content}}
    by_status: dict[int, list[ErrorCode]] = {}
    for code in _all_errors(operation):
        by_status.setdefault(error_kind(code).status, []).append(code)
    for status, codes in sorted(by_status.items()):
        text = f"{HTTPStatus(status).phrase}: {', '.join(sorted(set(codes)))}"
        responses[str(status)] = {"description": text, "content": _json(ErrorAnswer)}
    return responses


def _all_errors(operation: Operation) -> list[ErrorCode]:
    errors = [*operation.errors, ErrorCode.INTERNAL]
    if operation.scopes:
        errors += [
            ErrorCode.INVALID_API_KEY,
            ErrorCode.INVALID_TOKEN,
            ErrorCode.EXPIRED_TOKEN,
            ErrorCode.INSUFFICIENT_SCOPE,
            ErrorCode.ISSUER_UNAVAILABLE,
        ]
    return errors


def _json(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}
