"""The client library's connection, with what it does not do: insist on TLS, survive a change of its login, and neither
write nor hand over later than it could.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import nats.errors
from nats.aio.client import Client as LibraryClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.protocol.command import pub_cmd

_REFUSED = "authorization violation"
# Beyond so much that the socket has not taken, writing is left to the library's flusher, which waits for it.
_MAX_UNSENT_BYTES = 64 * 1024


class NoTls(nats.errors.Error):
    """The server offers none. Nothing was sent to it."""

    def __str__(self) -> str:
        return "it speaks no TLS, and TLS is asked for"


class Client(LibraryClient):
    """`needs_tls`: a login is never sent in the clear, whatever the server says of itself."""

    def __init__(self, *, needs_tls: bool = False) -> None:
        super().__init__()
        self._needs_tls = needs_tls
        self._is_writing = False
        self._direct: dict[int, Callable[[Msg], None]] = {}

    async def hear(self, subject: str, take: Callable[[Msg], None]) -> Subscription:
        """Subscribe, and have messages handed over as they are parsed, instead of through a queue and a task, a turn of
        the loop later.

        Nothing is ever pending then, so there are no limits for that. `take` must be quick.
        """

        async def take_early(message: Msg) -> None:
            take(message)  # the library delivers by itself only to whoever has a callback

        subscription = await self.subscribe(subject, cb=take_early)
        self._direct[subscription._id] = take
        return subscription

    def publish_soon(self, subject: str, payload: bytes) -> bool:
        """Publish what may be lost, without waiting for anything. False when it was dropped: not connected, or what was
        published before does not go out.
        """
        if not self.is_connected or self.is_draining_pubs:
            return False
        transport = self._open_transport()
        # What waits for the next turn is as good as written; what waits for the library's flusher is not.
        unsent = self._pending_data_size if transport is None else transport.get_write_buffer_size()
        if unsent > _MAX_UNSENT_BYTES:
            return False
        command = pub_cmd(subject, "", payload)
        self._pending.append(command)
        self._pending_data_size += len(command)
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += len(payload)
        if transport is not None:
            self._write_soon()
        elif self._flush_queue is not None and self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())
        return True

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._direct.pop(sid, None)
        super()._remove_sub(sid, max_msgs)

    def _connect_command(self) -> bytes:
        # The library believes a server, or whoever sits before it, that says it wants no TLS.
        scheme = self._current_server.uri.scheme if self._current_server is not None else ""
        if self._needs_tls and scheme != "wss" and not self._server_info.get("tls_required"):
            raise NoTls
        return super()._connect_command()

    async def _process_connect_init(self) -> None:
        """The library leaves a connection that was refused to the garbage collector."""
        try:
            await super()._process_connect_init()
        except BaseException:
            if self._transport is not None:
                self._transport.close()  # type: ignore[no-untyped-call]
            raise

    async def _process_err(self, err_msg: str) -> None:
        """A login that holds no more: there may be a new one, which the next attempt takes."""
        if _REFUSED in err_msg.lower() and not self.is_connecting:
            await self._process_op_err(nats.errors.AuthorizationError())
            return
        await super()._process_err(err_msg)

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        """The library wakes a task for each message that it writes. While the socket takes what it is given, that is
        only work: here all of one turn of the loop is written at the beginning of the next.
        """
        transport = self._open_transport()
        if force_flush or transport is None or transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            await super()._flush_pending(force_flush)
        else:
            self._write_soon()

    def _write_soon(self) -> None:
        if not self._is_writing:
            self._is_writing = True
            asyncio.get_running_loop().call_soon(self._write_pending)

    def _write_pending(self) -> None:
        self._is_writing = False
        if self.is_closed:
            return  # the library sends what is left
        transport = self._open_transport()
        pending, self._pending, self._pending_data_size = self._pending, [], 0
        # When the connection has ended meanwhile it is lost, as it would be had it been written at once.
        if transport is not None and pending:
            transport.writelines(pending)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        take = self._direct.get(sid)
        if take is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        try:
            take(self._build_message(sid, subject, reply, data, await self._process_headers(headers)))
        except Exception as error:
            await self._error_cb(error)

    def _open_transport(self) -> asyncio.WriteTransport | None:
        """None while nothing may be written but what belongs to the making of a connection."""
        if not self.is_connected or not isinstance(self._transport, TcpTransport):
            return None
        writer = self._transport._io_writer
        if writer is None or writer.transport.is_closing():
            return None
        return writer.transport
