"""Probes, version, welcome and the API document: open to all."""

from starlette.requests import Request
from starlette.responses import Response

from producer.edge.guard import services_of
from producer.edge.json_response import json_response
from producer.edge.openai_types import OpenApiDocument, Status, Version, Welcome
from producer.edge.operation import operation
from schemas.errors import ErrorCode, ServingError

_COME_BACK_S = 2.0


async def _alive(request: Request) -> Response:
    return json_response({"status": "ok"})


@operation(summary="Is the process alive?", returns=Status)
async def healthz(request: Request) -> Response:
    return await _alive(request)


@operation(summary="Is the process alive?", returns=Status)
async def health(request: Request) -> Response:
    return await _alive(request)


@operation(summary="Is the process alive?", returns=Status)
async def livez(request: Request) -> Response:
    return await _alive(request)


@operation(
    summary="Can it take requests?",
    returns=Status,
    errors=(ErrorCode.BROKER_UNAVAILABLE, ErrorCode.MODEL_LOADING, ErrorCode.POLICY_UNAVAILABLE),
)
async def readyz(request: Request) -> Response:
    """Ready: broker reachable, not draining, the newest policy or one that is not much older in force, and the default
    model was servable at least once since the start.
    """
    services = services_of(request)
    if services.drain.is_draining:
        raise services.drain.error()
    if not services.is_reachable:
        raise _not_ready(ErrorCode.BROKER_UNAVAILABLE, "The message broker cannot be reached.")
    services.policy_store.require_current()
    if not services.models.default_was_servable:
        raise _not_ready(ErrorCode.MODEL_LOADING, "No worker has served the default model yet.")
    return json_response({"status": "ready"})


def _not_ready(code: ErrorCode, message: str) -> ServingError:
    return ServingError(code, message, retryable=True, retry_after_s=_COME_BACK_S)


@operation(summary="Version of the server", returns=Version)
async def version(request: Request) -> Response:
    return json_response({"version": services_of(request).config.version})


@operation(summary="Where to find what", returns=Welcome)
async def welcome(request: Request) -> Response:
    server_version = services_of(request).config.version
    places = {"api": "/v1", "openapi": "/openapi.json", "docs": "/docs"}
    return json_response({"name": "inferflux", "version": server_version, **places})


@operation(summary="This document", returns=OpenApiDocument)
async def openapi(request: Request) -> Response:
    return json_response(request.app.state.openapi)
