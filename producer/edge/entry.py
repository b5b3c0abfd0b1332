"""The outermost layer: ids and cross-origin headers on every answer, and no failure without a shape."""

import structlog
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import Match, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from producer.edge.body import ClientLeft
from producer.edge.context import Context, put_context
from producer.edge.cors import Cors
from producer.edge.errors import error_response
from producer.edge.ids import mint_request_id, sanitise_client_id
from producer.edge.spans import HttpSpan
from schemas.errors import ErrorCode, ServingError
from schemas.tracing import NO_TRACER, Tracer

_log = structlog.stdlib.get_logger("inferflux.edge.entry")


class Entry:
    """ASGI middleware around the router."""

    def __init__(self, app: ASGIApp, cors: Cors, router: Router, tracer: Tracer = NO_TRACER) -> None:
        self._app = app
        self._cors = cors
        self._router = router
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = self._open(scope)
        has_begun = False
        call = HttpSpan(self._tracer, scope, context)

        async def send_stamped(message: Message) -> None:
            nonlocal has_begun
            if not has_begun:
                has_begun = True
                call.begins(message["status"])
                message["headers"] = [*message.get("headers", ()), *self._stamps(context)]
            await send(message)

        try:
            if scope["method"] == "OPTIONS":
                await self._options(scope, context)(scope, receive, send_stamped)
            else:
                await self._app(scope, receive, send_stamped)
        except ClientLeft:
            # Nobody reads this; the server wants an answer all the same.
            left = ServingError(ErrorCode.CANCELLED, "The client closed the connection.")
            await error_response(left)(scope, receive, send_stamped)
        except Exception as error:
            _log.error("unhandled failure", request_id=context.request_id, exc_info=error)
            call.failed(error)
            if has_begun:
                raise
            await error_response(_internal())(scope, receive, send_stamped)
        finally:
            call.end()

    def _open(self, scope: Scope) -> Context:
        headers = Headers(scope=scope)
        client_id = headers.get("x-request-id") or headers.get("x-client-request-id")
        context = Context(mint_request_id(), sanitise_client_id(client_id))
        origin = headers.get("origin")
        if origin is not None and self._cors.allows(origin):
            context.cors_origin = origin
        put_context(scope, context)
        path = scope["path"]
        if path != "/" and path.endswith("/"):
            scope["path"] = path.rstrip("/") or "/"
        return context

    def _stamps(self, context: Context) -> list[tuple[bytes, bytes]]:
        stamps = [(b"x-request-id", context.request_id.encode())]
        if context.client_request_id is not None:
            stamps.append((b"x-client-request-id", context.client_request_id.encode()))
        if context.cors_origin is not None:
            stamps += self._cors.headers(context.cors_origin)
        return stamps + [(name.encode(), value.encode()) for name, value in context.limits.items()]

    def _options(self, scope: Scope, context: Context) -> Response:
        headers = Headers(scope=scope)
        if "origin" in headers and "access-control-request-method" in headers:
            allowed = context.cors_origin is not None
            requested = headers.get("access-control-request-headers")
            return Response(status_code=204, headers=self._cors.preflight_headers(requested) if allowed else None)
        methods = self._methods(scope)
        if not methods:
            return error_response(not_found(scope["path"]))
        return Response(status_code=204, headers={"allow": ", ".join(sorted(methods))})

    def _methods(self, scope: Scope) -> set[str]:
        methods: set[str] = set()
        for route in self._router.routes:
            if route.matches(scope)[0] is not Match.NONE:
                methods |= getattr(route, "methods", None) or set()
        return methods | {"OPTIONS"} if methods else methods


def not_found(path: str) -> ServingError:
    return ServingError(ErrorCode.ROUTE_NOT_FOUND, f"There is nothing at {path[:200]}.")


def _internal() -> ServingError:
    return ServingError(ErrorCode.INTERNAL, "The server made a mistake. It has been logged with this request id.")
