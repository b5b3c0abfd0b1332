"""The connection under one answer: how much of what was sent is still on its way, and ending what nobody reads."""

import asyncio
import sys
from typing import Any

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_KEY = "inferflux.wire"
# What a reader that was cut has left to take what lies in the buffers.
_LINGER_S = 5.0

if sys.platform == "linux":
    import fcntl
    import struct
    import termios

    def _unacknowledged(fd: int) -> int:
        """Bytes in the kernel's send queue that the peer has not acknowledged."""
        try:
            answer = fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0")
        except OSError:
            return 0
        number: int = struct.unpack("i", answer)[0]
        return number

else:

    def _unacknowledged(fd: int) -> int:
        """Unknown here."""
        return 0


class Wire:
    """One request's hold on its connection."""

    __slots__ = ("_cycle", "_transport")

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle) -> None:
        self._transport = transport
        self._cycle = cycle

    @property
    def is_closing(self) -> bool:
        return self._transport.is_closing()

    @property
    def unsent_bytes(self) -> int:
        """What the client's system has not acknowledged, in this process and in the kernel."""
        buffered = self._transport.get_write_buffer_size()
        if self._transport.is_closing():
            return buffered
        sock: Any = self._transport.get_extra_info("socket")
        return buffered + (0 if sock is None else _unacknowledged(sock.fileno()))

    def end_with(self, event: bytes) -> None:
        """Append a last event behind what the buffers hold, and close. A client that does not take it soon is reset."""
        if self._transport.is_closing():
            return
        if self._cycle.chunked_encoding:
            event = b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event)
        self._transport.write(event)
        # Nothing more may be sent as part of this answer.
        self._cycle.response_complete = True
        self._transport.close()
        asyncio.get_running_loop().call_later(_LINGER_S, self._transport.abort)


def put_wire(scope: Scope, wire: Wire) -> None:
    scope[_KEY] = wire


def wire_of(scope: Scope) -> Wire | None:
    """None under a server that is not ours."""
    wire = scope.get(_KEY)
    return wire if isinstance(wire, Wire) else None
