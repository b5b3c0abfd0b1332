"""A server with OPA's data API that decides as a test says."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


class Opa:
    """`answer` makes the response to each question; `asked` are the inputs so far."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.url = ""
        self.answer: Callable[[], Awaitable[Response]] = self.allow

    async def allow(self) -> Response:
        return result({"allow": True})

    def decide(self, value: Any) -> None:
        async def answer() -> Response:
            return result(value)

        self.answer = answer

    def reply(self, content: bytes, status: int = 200) -> None:
        async def answer() -> Response:
            return Response(content, status)

        self.answer = answer

    def hang(self) -> None:
        async def answer() -> Response:
            await asyncio.Event().wait()
            raise AssertionError

        self.answer = answer

    async def handle(self, request: Request) -> Response:
        self.asked.append(orjson.loads(await request.body())["input"])
        return await self.answer()


def result(value: Any) -> Response:
    return Response(orjson.dumps({"result": value}), media_type="application/json")


@contextlib.asynccontextmanager
async def running_opa(**tls: Any) -> AsyncIterator[Opa]:
    opa = Opa()
    app = Starlette(routes=[Route("/v1/data/inferflux/decision", opa.handle, methods=["POST"])])
    sock = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=0, **tls)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    serving = asyncio.create_task(server.serve([sock]))
    scheme = "https" if tls else "http"
    opa.url = f"{scheme}://127.0.0.1:{sock.getsockname()[1]}/v1/data/inferflux/decision"
    try:
        yield opa
    finally:
        server.should_exit = server.force_exit = True
        await asyncio.wait({serving})
        sock.close()
