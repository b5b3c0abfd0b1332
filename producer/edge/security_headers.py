"""Headers that keep browsers from making more of an answer than it is. On every answer of every port.

A handler that serves a page sets its own; what it has set stays.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    # Answers are of one caller and of one moment.
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
_TLS_ONLY = ((b"strict-transport-security", b"max-age=31536000"),)


def security_headers(scheme: str | None) -> tuple[tuple[bytes, bytes], ...]:
    """Those of an answer over `scheme`: only over TLS may a browser be told to use nothing else."""
    return _HEADERS + _TLS_ONLY if scheme == "https" else _HEADERS


class SecurityHeaders:
    """ASGI middleware around a whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                present = {name.lower() for name, _ in headers}
                headers += [each for each in security_headers(scope.get("scheme")) if each[0] not in present]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_with_headers)
