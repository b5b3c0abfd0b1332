"""HTTP/1.1 as uvicorn speaks it, with our form of errors, and limits on headers, connections and buffers."""

import asyncio
import re
from typing import Any, NamedTuple, cast

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from producer.edge.errors import dumps, error_object, error_response
from producer.edge.ids import mint_request_id
from producer.edge.wire import Wire, put_wire
from schemas.errors import ErrorCode, ServingError

_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_HEADERS_WITHIN_S = 30.0
_MAX_HEADER_BYTES = 64 * 1024
# Beyond the limit connections are told so; so many more are closed without a word.
_SURPLUS = 256
# Whoever watches over this process must not take it for dead because it is busy.
_PROBES = (b"/livez", b"/readyz", b"/healthz", b"/health")
_COME_BACK_S = 1.0


class ConnectionLimits(NamedTuple):
    """`max_connections` of one server. A send waits while more than `write_buffer_bytes` lie in a connection."""

    max_connections: int = 1024
    write_buffer_bytes: int = 64 * 1024


class EdgeProtocol(HttpToolsProtocol):
    """One connection."""

    limits = ConnectionLimits()
    _header_timer: asyncio.TimerHandle | None = None
    _header_bytes = 0
    _wire: Wire | None = None

    def data_received(self, data: bytes) -> None:
        # Some clients (Java's, curl --http2) offer an upgrade to HTTP/2 with a POST. We may ignore it, but the parser
        # would take the body for the other protocol. The name keeps its length.
        if b"pgrade" in data:
            head, blank, rest = data.partition(b"\r\n\r\n")
            data = _UPGRADE.sub(b"\r\nignored:", head) + blank + rest
        super().data_received(data)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        high = self.limits.write_buffer_bytes
        transport.set_write_buffer_limits(high=high, low=high // 4)
        if len(self.connections) > self.limits.max_connections + _SURPLUS:
            transport.abort()
            return
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_header_timer()
        if self._wire is not None:
            self._wire.lost(exc)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes = 0
        self._await_headers()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_header_timer()
        if len(self.connections) > self.limits.max_connections and not self.url.startswith(_PROBES):
            self.app = _turn_away
        if self._wire is not None:
            self._wire.next_begins()
        super().on_headers_complete()
        if self.cycle is not None:
            self._wire = Wire(self.transport, self.cycle)
            put_wire(cast(Scope, self.cycle.scope), self._wire)

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP gets the same kind of answer as everything else."""
        self._stop_header_timer()
        body = dumps(error_object(ServingError(ErrorCode.INVALID_JSON, msg)))
        lines = [
            STATUS_LINE[400],
            b"content-type: application/json\r\n",
            b"x-request-id: " + mint_request_id().encode() + b"\r\n",
            b"content-length: %d\r\n" % len(body),
            b"connection: close\r\n\r\n",
            body,
        ]
        self.transport.write(b"".join(lines))
        self.transport.close()

    def timeout_keep_alive_handler(self) -> None:
        """A client that has left its answer lying for so long does not get the time to take it."""
        if self.transport.get_write_buffer_size() > 0:
            self.transport.abort()
        super().timeout_keep_alive_handler()

    def _count(self, num_bytes: int) -> None:
        self._header_bytes += num_bytes
        if self._header_bytes > _MAX_HEADER_BYTES:
            # The parser takes this for a malformed request.
            raise ValueError("headers too large")

    def _await_headers(self) -> None:
        self._stop_header_timer()
        self._header_timer = self.loop.call_later(_HEADERS_WITHIN_S, self._headers_too_slow)

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


async def _turn_away(scope: Scope, receive: Receive, send: Send) -> None:
    error = ServingError(
        ErrorCode.QUEUE_FULL,
        "This server has as many connections as it may.",
        retryable=True,
        retry_after_s=_COME_BACK_S,
    )
    await error_response(error, {"connection": "close", "x-request-id": mint_request_id()})(scope, receive, send)
