"""Seeing the client leave."""

import asyncio

from starlette.types import Receive


class Departure:
    """Watches `receive` from the end of the body to the end of the answer. FIN and RST show in milliseconds.

    An answer that is complete ends the watch too, as the server says the same of it.
    """

    def __init__(self, receive: Receive) -> None:
        self.watcher = asyncio.create_task(_until_gone(receive), name="departure")

    def stop(self) -> None:
        """Nobody wants to know any more."""
        self.watcher.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
