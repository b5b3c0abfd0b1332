"""Clients that do not wait for each other: streams asked for at a rate, whatever becomes of the ones before."""

import asyncio
import json
import random
import time
from collections.abc import Callable
from typing import Any, NamedTuple

Body = dict[str, Any]
Headers = dict[str, str]


class Outcome(NamedTuple):
    """What one client met. `is_whole`: a stream that came to its `[DONE]`. Times are monotonic."""

    status: int
    headers: Headers
    text: str
    is_whole: bool
    ended_at: float

    @property
    def request_id(self) -> str:
        return self.headers["x-request-id"]


async def ask(port: int, key: str, body: Body, **headers: str) -> Outcome:
    """One call on a connection of its own, read to its end."""
    payload = json.dumps(body).encode()
    lines = [
        "POST /v1/completions HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
        "Connection: close",
        f"Content-Length: {len(payload)}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + payload)
        head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    status, *fields = head.decode().split("\r\n")
    answered = dict(field.lower().split(": ", 1) for field in fields)
    return Outcome(int(status.split()[1]), answered, answer.decode(), b"data: [DONE]" in answer, time.monotonic())


async def open_loop(
    port: int, key: str, *, per_s: float, seconds: float, make: Callable[[int], tuple[Body, Headers]], seed: int = 1
) -> list[Outcome]:
    """Clients that arrive by chance, `per_s` on average, for so many seconds; all of them have ended at the end."""
    chances, clients = random.Random(seed), []
    now = began_at = time.monotonic()
    due = began_at + chances.expovariate(per_s)
    while due < began_at + seconds:
        await asyncio.sleep(max(due - now, 0))
        body, headers = make(len(clients))
        clients.append(asyncio.create_task(ask(port, key, body, **headers)))
        due += chances.expovariate(per_s)
        now = time.monotonic()
    return list(await asyncio.gather(*clients))
