"""The way into a connection over TLS: its handshake, begun here and not by the event loop.

A loop that listens with TLS keeps the transport below to itself, and with it a second buffer that nobody can bound.
Begun here, that one is full with the first byte that the system does not take, and what waits lies in one place.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, ClassVar, cast

from producer.edge.tls import FollowingTls


class TlsDoor(asyncio.Protocol):
    """One connection until its handshake is done; `make_protocol` then makes the one that goes on with it.

    What the server gives to the protocols that it makes is passed on.
    """

    tls: ClassVar[FollowingTls]
    handshake_timeout_s: ClassVar[float]
    make_protocol: ClassVar[Callable[..., asyncio.Protocol]]
    # Held, since the loop itself does not.
    opening: ClassVar[set[asyncio.Task[None]]]

    def __init__(self, **arguments: Any) -> None:
        self._arguments = arguments
        # Before TLS is begun a part of the handshake, afterwards what came right behind it.
        self._early = b""
        self._is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        below = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        below.set_write_buffer_limits(0)
        task = asyncio.get_running_loop().create_task(self._open(below))
        self.opening.add(task)
        task.add_done_callback(self.opening.discard)

    def data_received(self, data: bytes) -> None:
        self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True

    async def _open(self, transport: asyncio.Transport) -> None:
        try:
            secured = await self._secured(transport)
        except OSError:  # not TLS, not trusted, too slow, or gone
            transport.abort()
            return
        if secured is None or self._is_lost:
            transport.abort()
            return
        protocol = type(self).make_protocol(**self._arguments)
        secured.set_protocol(protocol)
        protocol.connection_made(secured)
        if self._early:
            protocol.data_received(self._early)

    async def _secured(self, transport: asyncio.Transport) -> asyncio.Transport | None:
        """The transport once the handshake is done. Raises OSError, of which those of TLS are."""
        if self._is_lost:
            return None
        transport.pause_reading()
        context = _Primed(self.tls.current, self._early) if self._early else self.tls.current
        self._early = b""
        return await asyncio.get_running_loop().start_tls(
            transport, self, context, server_side=True, ssl_handshake_timeout=self.handshake_timeout_s
        )


class _Primed(ssl.SSLContext):
    """Loops ask the context for each connection. This one of one connection has read what came before TLS was begun."""

    _actual: ssl.SSLContext
    _begun: bytes

    def __new__(cls, actual: ssl.SSLContext, begun: bytes) -> "_Primed":
        self = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        self._actual, self._begun = actual, begun
        return self

    def wrap_bio(self, incoming: ssl.MemoryBIO, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        incoming.write(self._begun)
        return self._actual.wrap_bio(incoming, *args, **kwargs)


def door_to(
    make_protocol: Callable[..., asyncio.Protocol], tls: FollowingTls, handshake_timeout_s: float
) -> type[TlsDoor]:
    """The protocol of a server that speaks TLS."""
    attributes = {
        "tls": tls,
        "handshake_timeout_s": handshake_timeout_s,
        "make_protocol": staticmethod(make_protocol),
        "opening": set(),
    }
    return type("TlsDoor", (TlsDoor,), attributes)
