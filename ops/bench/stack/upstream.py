"""A chat server that costs next to nothing, for a proxy to stand in front of: one token every so many milliseconds.

It is a process of its own: `python -m ops.bench.stack.upstream --port 8000 --every-ms 5`.
"""

import asyncio
import sys
from contextlib import suppress

import click
import orjson

from ops.cli import loop

HOST = "127.0.0.1"
_TEXT = "x"
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Upstream:
    """Answers every chat with `max_tokens` tokens, the first of them after the first interval."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, which is kept for further requests."""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                body = await reader.readexactly(_length(head))
                if head.startswith("GET"):
                    writer.write(_OK)
                else:
                    await self._answer(orjson.loads(body).get("max_tokens") or 16, writer)
        writer.close()

    async def _answer(self, num_tokens: int, writer: asyncio.StreamWriter) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        writer.write(_HEAD + _chunk({"role": "assistant", "content": ""}))
        for _ in range(num_tokens):
            # From the last due time, not from now: what sleeping takes too long is not added up.
            due += self._every_s
            await asyncio.sleep(max(0.0, due - clock()))
            writer.write(_chunk({"content": _TEXT}))
            await writer.drain()
        usage = {"prompt_tokens": 1, "completion_tokens": num_tokens, "total_tokens": num_tokens + 1}
        end = _chunk({}, finish_reason="stop") + _event(orjson.dumps({**_BASE, "choices": [], "usage": usage}))
        writer.write(end + _event(b"[DONE]") + b"0\r\n\r\n")
        await writer.drain()


_BASE = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "echo"}


def _chunk(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return _event(orjson.dumps({**_BASE, "choices": [choice]}))


def _event(payload: bytes) -> bytes:
    data = b"data: " + payload + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def _length(head: str) -> int:
    lines = (line.partition(":") for line in head.lower().splitlines())
    return next((int(value) for name, _, value in lines if name == "content-length"), 0)


@click.command()
@click.option("--port", type=int, required=True)
@click.option("--every-ms", type=float, required=True, help="Time of a token; 0 is as fast as it goes.")
def command(port: int, every_ms: float) -> None:
    """Stream tokens at a steady rate."""

    async def serve() -> None:
        server = await asyncio.start_server(Upstream(every_ms / 1000).serve, HOST, port)
        await server.serve_forever()

    loop.run(serve())


if __name__ == "__main__":
    sys.exit(command())
