"""A chat server of a few lines, whose answers a test knows beforehand."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from ops.bench.connection import Target

CUT = 7


@dataclass
class ChatServer:
    """Every answer has `pieces`, sent in packets of a few bytes, and a usage of `completion_tokens`.

    `failing` has, by the request's number from 0, bytes to send instead of a good answer.
    """

    pieces: tuple[str, ...] = ("Hel", "lo")
    prompt_tokens: int = 5
    completion_tokens: int = 64
    cached_tokens: int | None = None
    failing: dict[int, bytes] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    num_connections: int = 0
    max_open_answers: int = 0
    _open_answers: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            await self._answer(reader, writer)
        except ConnectionError:  # the load ended early
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(int(line.partition(":")[2]) for line in head.splitlines() if line.startswith("Content-Length"))
        number = len(self.requests)
        self.requests.append({"head": head, **json.loads(await reader.readexactly(length))})
        if number in self.failing:
            writer.write(self.failing[number])
            return
        self._open_answers += 1
        self.max_open_answers = max(self.max_open_answers, self._open_answers)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for packet in self._packets():
            writer.write(packet)
            await asyncio.sleep(0)  # lets the other clients in, so that answers overlap
        self._open_answers -= 1

    def _packets(self) -> Iterator[bytes]:
        stream = b": comment\n" + b"".join(b"data: " + payload + b"\n\n" for payload in self._payloads())
        for start in range(0, len(stream), CUT):
            part = stream[start : start + CUT]
            yield b"%x\r\n%s\r\n" % (len(part), part)
        yield b"0\r\n\r\n"

    def _payloads(self) -> Iterator[bytes]:
        for piece in ("", *self.pieces):
            yield json.dumps({"choices": [{"index": 0, "text": piece}], "usage": None}).encode()
        usage: dict[str, Any] = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        if self.cached_tokens is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": self.cached_tokens}
        yield json.dumps({"choices": [], "usage": usage}).encode()
        yield b"[DONE]"


@asynccontextmanager
async def running(chat: ChatServer) -> AsyncIterator[Target]:
    server = await asyncio.start_server(chat.serve, "127.0.0.1", 0)
    try:
        yield Target("127.0.0.1", server.sockets[0].getsockname()[1], "secret")
    finally:
        server.close()
