"""The connection under one answer: how much of what was sent is still on its way, and ending what nobody reads."""

import asyncio
import contextlib
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
    """One request's hold on its connection.

    `is_dropped`: the client's system has thrown away what it had not handed over, and what was on its way; or the
    connection has ended before all of the answer was sent.
    """

    __slots__ = ("_cycle", "_is_cut_short", "_is_lost", "_is_taken", "_news", "_transport", "is_dropped")

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle) -> None:
        self._transport = transport
        self._cycle = cycle
        self._is_taken = False
        self._is_lost = False
        self._is_cut_short = False
        self.is_dropped = False
        self._news = asyncio.Event()

    @property
    def unsent_bytes(self) -> int:
        """What the client's system has not acknowledged, in this process and in the kernel."""
        buffered = self._transport.get_write_buffer_size()
        sock = self._sock()
        return buffered + (0 if sock is None else _unacknowledged(sock.fileno()))

    @property
    def is_taken(self) -> bool:
        """Whether the client's system has acknowledged all of this answer, which has been sent.

        While a connection is being closed that is not known: a reset is told of some rounds of the loop later. One that
        ended in order counts: what was on its way then, nobody tells.
        """
        if self._is_taken or self._is_lost:
            return self._is_taken or not self.is_dropped
        sock = self._sock()
        return sock is not None and self.unsent_bytes == 0

    def next_begins(self) -> None:
        """Another request has come over the connection: what is on its way after this is no longer of this answer."""
        if self._cycle.response_complete and self.is_taken:
            self._is_taken = True
            self._news.set()

    def client_ended(self) -> None:
        """The client has ended its side, and the transport closes at once: what is written in the same round of the
        loop it takes without a word, and the cycle counts that as sent.
        """
        self._is_cut_short = not self._cycle.response_complete

    def lost(self, error: Exception | None) -> None:
        """The connection has ended, with an error when the client's system has reset it."""
        self._is_lost = True
        # What is sent from now on goes nowhere, without a word: the cycle does not count it as complete either.
        self.is_dropped = error is not None or self._is_cut_short or not self._cycle.response_complete
        self._news.set()

    async def wait_news(self, timeout_s: float) -> None:
        """Returns once the connection has ended, or the next request has come and this answer is taken, or when the
        time is over.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()

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

    def _sock(self) -> Any:
        """None once the connection is being closed, when its number may soon be another's."""
        return None if self._transport.is_closing() else self._transport.get_extra_info("socket")


def put_wire(scope: Scope, wire: Wire) -> None:
    scope[_KEY] = wire


def wire_of(scope: Scope) -> Wire | None:
    """None under a server that is not ours."""
    wire = scope.get(_KEY)
    return wire if isinstance(wire, Wire) else None
