"""Answers as they come in at a client: each piece of text, and when it came."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.system.stack import KEY


@dataclass
class Arrival:
    """One streamed completion. `times` are monotonic, one for each of `pieces`; `error` is the server's error object.

    `is_whole`: the stream ended as it should, with `[DONE]`.
    """

    request_id: str = ""
    pieces: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    reason: str | None = None
    error: dict[str, Any] | None = None
    is_whole: bool = False

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def last_at(self) -> float:
        """When the last piece came; 0.0 before the first."""
        return self.times[-1] if self.times else 0.0

    @property
    def longest_silence(self) -> float:
        return max((after - before for before, after in itertools.pairwise(self.times)), default=0.0)

    def silence_after(self, moment: float, until: float) -> float | None:
        """The longest wait for a piece that was going on after `moment` and began before `until`; None if it had ended.

        Pieces that were on their way at `moment` still come right after it, so the next one alone does not tell.
        """
        ends = [number for number, at in enumerate(self.times) if number and at > moment]
        gaps = [self.times[n] - self.times[n - 1] for n in ends if self.times[n - 1] < until]
        return max(gaps, default=None)


class Client:
    """Asks a stack, many questions at a time. `on_piece` is called whenever text has come, of any answer."""

    def __init__(self, http: httpx2.AsyncClient, on_piece: Callable[[], None] = lambda: None) -> None:
        self._http = http
        self._on_piece = on_piece

    async def ask(
        self,
        url: str,
        body: dict[str, Any],
        *,
        key: str | None = None,
        into: Arrival | None = None,
        headers: dict[str, str] | None = None,
    ) -> Arrival:
        """The answer to a completion, once it has ended; fill `into` meanwhile. `key` is an Idempotency-Key.

        An answer that is not 200 ends at once with its error. Raises httpx2.TransportError when the connection breaks.
        """
        arrival = into if into is not None else Arrival()
        async with self._http.stream(
            "POST", f"{url}/v1/completions", json={**body, "stream": True}, headers=_headers(key, headers)
        ) as answer:
            arrival.request_id = answer.headers["x-request-id"]
            if answer.status_code != 200:
                arrival.error = json.loads(await answer.aread())["error"]
                return arrival
            async for line in _lines(answer):
                if line.startswith("data: "):
                    self._take(arrival, line.removeprefix("data: "))
        return arrival

    async def ask_whole(self, url: str, body: dict[str, Any], *, key: str | None = None) -> Arrival:
        """As `ask`, in one piece."""
        answer = await self._http.post(f"{url}/v1/completions", json=body, headers=_headers(key))
        arrival = Arrival(answer.headers["x-request-id"])
        document = answer.json()
        if answer.status_code != 200:
            arrival.error = document["error"]
            return arrival
        [choice] = document["choices"]
        arrival.pieces, arrival.times = [choice["text"]], [time.monotonic()]
        arrival.reason, arrival.is_whole = choice["finish_reason"], True
        return arrival

    async def cancel(self, url: str, request_id: str) -> int:
        """DELETE; the status."""
        return (await self._http.delete(f"{url}/v1/requests/{request_id}", headers=_headers())).status_code

    def _take(self, arrival: Arrival, data: str) -> None:
        if data == "[DONE]":
            arrival.is_whole = True
            return
        chunk = json.loads(data)
        if "error" in chunk:
            arrival.error = chunk["error"]
            return
        for choice in chunk["choices"]:
            arrival.reason = choice["finish_reason"] or arrival.reason
            if choice["text"]:
                arrival.pieces.append(choice["text"])
                arrival.times.append(time.monotonic())
        self._on_piece()


async def _lines(answer: httpx2.Response) -> AsyncIterator[str]:
    """Lines as server-sent events have them: the library's own also end at U+2028 and others that a text may hold."""
    rest = ""
    async for text in answer.aiter_text():
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            yield line


def _headers(key: str | None = None, more: dict[str, str] | None = None) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEY}", **({"Idempotency-Key": key} if key else {}), **(more or {})}


class News:
    """Lets several wait for the next piece of any answer."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def tell(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._event.wait()


@asynccontextmanager
async def open_client(news: News | None = None, timeout_s: float = 120) -> AsyncIterator[Client]:
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx2.AsyncClient(timeout=timeout_s, limits=limits, trust_env=False) as http:
        yield Client(http, news.tell if news is not None else lambda: None)
