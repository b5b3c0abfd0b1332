"""Seeing the client leave while its answer is not yet being sent."""

import asyncio

from starlette.types import Receive


class Departure:
    """Watches `receive` from the end of the body until the response takes over. FIN and RST show in milliseconds."""

    def __init__(self, receive: Receive) -> None:
        self.watcher = asyncio.create_task(_until_gone(receive), name="departure")

    async def stop(self) -> None:
        """Hand `receive` on. The server keeps a disconnect that happens meanwhile for whoever asks next."""
        self.watcher.cancel()
        await asyncio.wait({self.watcher})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
