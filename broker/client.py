"""The client library's connection, with what it does not do: insist on TLS, and survive a change of its login."""

import nats.errors
from nats.aio.client import Client as LibraryClient

_REFUSED = "authorization violation"


class NoTls(nats.errors.Error):
    """The server offers none. Nothing was sent to it."""

    def __str__(self) -> str:
        return "it speaks no TLS, and TLS is asked for"


class Client(LibraryClient):
    """`needs_tls`: a login is never sent in the clear, whatever the server says of itself."""

    def __init__(self, *, needs_tls: bool = False) -> None:
        super().__init__()
        self._needs_tls = needs_tls

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
