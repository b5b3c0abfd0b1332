"""The ASGI application: router, error rendering, lifespan."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from producer.auth.oidc.resource import challenge
from producer.config import EdgeConfig
from producer.edge.batch.drain import draining_batches
from producer.edge.body import UnreadBody
from producer.edge.cors import Cors
from producer.edge.entry import Entry, not_found
from producer.edge.errors import error_response
from producer.edge.guard import to_starlette
from producer.edge.openapi import openapi_document
from producer.edge.routes.table import ROUTES
from producer.edge.services import Services
from schemas.errors import ErrorCode, ServingError


def create_app(config: EdgeConfig, services: Services) -> Starlette:
    """The edge as an application. While it is up, calls are watched over; draining is up to whoever serves it."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with services.running(), draining_batches(services):
            yield

    app = Starlette(
        routes=to_starlette(ROUTES),
        lifespan=lifespan,
        exception_handlers={ServingError: on_serving_error, HTTPException: _on_http_exception},
    )
    # A slash at the end is taken off beforehand; nothing is ever redirected.
    app.router.redirect_slashes = False
    app.user_middleware = [Middleware(Entry, cors=Cors(config.cors_origins), router=app.router, tracer=services.tracer)]
    app.state.services = services
    app.state.openapi = openapi_document(ROUTES, config.version)
    return app


async def on_serving_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServingError)
    headers = {"connection": "close"} if isinstance(error, UnreadBody) else {}
    policy = request.app.state.services.oidc.policy
    if error.status == 401 and policy is not None:
        is_bad_token = error.code in (ErrorCode.INVALID_TOKEN, ErrorCode.EXPIRED_TOKEN)
        headers["www-authenticate"] = challenge(
            policy, request.url.scheme, request.headers.get("host"), is_bad_token=is_bad_token
        )
    return error_response(error, headers)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 405:
        refusal = ServingError(ErrorCode.METHOD_NOT_ALLOWED, f"{request.method[:20]} is not possible on {path[:200]}.")
        return error_response(refusal, dict(error.headers or {}))
    if error.status_code == 404:
        return error_response(not_found(path))
    return error_response(ServingError(ErrorCode.INVALID_PARAMETER, str(error.detail)))
