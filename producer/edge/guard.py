"""The door of every route: authenticate, check the scope of its operation, hand over to its handler."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute

from producer.auth.api_keys import presented_key
from producer.auth.rbac import require_scope
from producer.edge.audited import note_denied_access
from producer.edge.context import context_of
from producer.edge.operation import Route
from producer.edge.services import Services
from producer.edge.spans import name_route
from schemas.errors import ServingError
from schemas.requests import Identity


def services_of(request: Request) -> Services:
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


def to_starlette(routes: tuple[Route, ...]) -> list[StarletteRoute]:
    """Routes of the web framework, each of ours with and without `/v1`."""
    made = []
    for route in routes:
        paths = {route.path, route.path.removeprefix("/v1")}
        endpoint = _guarded(route)
        made += [StarletteRoute(path, endpoint, methods=[route.method]) for path in sorted(paths, reverse=True)]
    return made


def _guarded(route: Route):  # type: ignore[no-untyped-def]
    handler = route.handler

    async def endpoint(request: Request) -> Response:
        name_route(context_of(request).span, route)
        scopes = handler.operation.scopes
        if scopes:
            services = services_of(request)
            try:
                identity = await authenticate(request, services)
                context_of(request).become(identity)
                require_scope(identity, scopes)
            except ServingError as error:
                services.metrics.auth_failed(error.code)
                note_denied_access(services.audit, request, error)
                raise
        return await handler.handle(request)

    return endpoint


async def authenticate(request: Request, services: Services) -> Identity:
    """Who presents the key or token in the headers. Raises ServingError (401, or 503 when nobody could tell)."""
    services.policy_store.require_current()
    headers = request.headers
    secret = presented_key(headers.get("authorization"), headers.get("x-api-key"), headers.get("api-key"))
    identity = await services.authenticator.identify(secret)
    context_of(request).key_digest = services.authenticator.key_digest(secret)
    return identity
