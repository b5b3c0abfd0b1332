"""HTTP/1.1 as uvicorn speaks it, with our form of errors, and limits on headers, connections and buffers."""

import asyncio
import re
from typing import Any, NamedTuple, cast

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from producer.edge.errors import dumps, error_object, error_response
from producer.edge.ids import mint_request_id
from producer.edge.security_headers import SecurityHeaders, security_headers
from producer.edge.wire import Wire, put_wire
from schemas.errors import ErrorCode, ServingError

_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_MAX_URL_BYTES = 8 * 1024
_MAX_HEADER_BYTES = 64 * 1024
_MAX_HEADERS = 128
# What is handed to the parser at once, so that it cannot collect much more than it may before we count.
_SLICE_BYTES = 16 * 1024
# Beyond the limit connections are told so; so many more are closed without a word.
_SURPLUS = 256
# Whoever watches over this process must not take it for dead because it is busy.
_PROBES = (b"/livez", b"/readyz", b"/healthz", b"/health")
_COME_BACK_S = 1.0


class ConnectionLimits(NamedTuple):
    """`max_connections` of one server. A send waits while more than `write_buffer_bytes` lie in a connection.

    From the first byte of a request, or the start of its connection, its headers have `header_timeout_s` to be whole.
    """

    max_connections: int = 1024
    write_buffer_bytes: int = 64 * 1024
    header_timeout_s: float = 30.0


class EdgeProtocol(HttpToolsProtocol):
    """One connection."""

    limits = ConnectionLimits()
    _header_timer: asyncio.TimerHandle | None = None
    _header_bytes = 0
    # Taken in since the parser last had something to show for it. A header, a trailer or the size of a chunk that does
    # not end would otherwise be collected in it without bound.
    _fruitless_bytes = 0
    _refusal: ServingError | None = None
    _wire: Wire | None = None

    def data_received(self, data: bytes) -> None:
        # Some clients (Java's, curl --http2) offer an upgrade to HTTP/2 with a POST. We may ignore it, but the parser
        # would take the body for the other protocol. The name keeps its length.
        if b"pgrade" in data:
            head, blank, rest = data.partition(b"\r\n\r\n")
            data = _UPGRADE.sub(b"\r\nignored:", head) + blank + rest
        for start in range(0, len(data), _SLICE_BYTES):
            piece = data[start : start + _SLICE_BYTES]
            self._fruitless_bytes += len(piece)
            super().data_received(piece)
            if self.transport.is_closing():
                return
            if self._fruitless_bytes > _MAX_HEADER_BYTES + _SLICE_BYTES:
                self._refusal = _headers_too_large()
                self.send_400_response("")
                return

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        high = self.limits.write_buffer_bytes
        transport.set_write_buffer_limits(high=high, low=high // 4)
        if len(self.connections) > self.limits.max_connections + _SURPLUS:
            transport.abort()
            return
        self._await_headers()

    def eof_received(self) -> None:
        if self._wire is not None:
            self._wire.client_ended()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_header_timer()
        if self._wire is not None:
            self._wire.lost(exc)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes = 0
        self._fruitless_bytes = 0
        self._await_headers()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > _MAX_URL_BYTES:
            text = f"The path and query are longer than {_MAX_URL_BYTES} bytes."
            self._refuse(ServingError(ErrorCode.URI_TOO_LONG, text))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > _MAX_HEADER_BYTES or len(self.headers) > _MAX_HEADERS:
            self._refuse(_headers_too_large())

    def on_body(self, body: bytes) -> None:
        self._fruitless_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._fruitless_bytes = 0
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        self._stop_header_timer()
        self._fruitless_bytes = 0
        if len(self.connections) > self.limits.max_connections and not self.url.startswith(_PROBES):
            self.app = _TURN_AWAY
        if self._wire is not None:
            self._wire.next_begins()
        super().on_headers_complete()
        if self.cycle is not None:
            self._wire = Wire(self.transport, self.cycle)
            put_wire(cast(Scope, self.cycle.scope), self._wire)

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP, or too much of it, gets the same kind of answer as everything else."""
        self._stop_header_timer()
        error = self._refusal or ServingError(ErrorCode.INVALID_JSON, msg)
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(_raw_answer(error, self.scheme))
        self.transport.close()

    def timeout_keep_alive_handler(self) -> None:
        """A client that has left its answer lying for so long does not get the time to take it."""
        if self.transport.get_write_buffer_size() > 0:
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def _refuse(self, error: ServingError) -> None:
        """From within the parser, which takes this for a malformed request."""
        self._refusal = error
        raise ValueError(error.message)

    def _await_headers(self) -> None:
        self._stop_header_timer()
        self._header_timer = self.loop.call_later(self.limits.header_timeout_s, self._headers_too_slow)

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _headers_too_slow(self) -> None:
        if not self.transport.is_closing():
            self.send_400_response("The request's headers did not arrive in time.")


def make_protocol(limits: ConnectionLimits) -> type[EdgeProtocol]:
    """The protocol of one server: uvicorn wants a class and creates the connections itself."""
    return type("EdgeProtocol", (EdgeProtocol,), {"limits": limits})


def _headers_too_large() -> ServingError:
    text = f"The headers are larger than {_MAX_HEADER_BYTES} bytes, or more than {_MAX_HEADERS}."
    return ServingError(ErrorCode.HEADERS_TOO_LARGE, text)


def _raw_answer(error: ServingError, scheme: str | None) -> bytes:
    """An answer to what no application gets to see."""
    body = dumps(error_object(error))
    headers = [
        (b"content-type", b"application/json"),
        (b"x-request-id", mint_request_id().encode()),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
        *security_headers(scheme),
    ]
    lines = [b"%b: %b\r\n" % header for header in headers]
    return b"".join([STATUS_LINE[error.status], *lines, b"\r\n", body])


async def _turn_away(scope: Scope, receive: Receive, send: Send) -> None:
    error = ServingError(
        ErrorCode.QUEUE_FULL,
        "This server has as many connections as it may.",
        retryable=True,
        retry_after_s=_COME_BACK_S,
    )
    await error_response(error, {"connection": "close", "x-request-id": mint_request_id()})(scope, receive, send)


_TURN_AWAY = cast(Any, SecurityHeaders(_turn_away))
