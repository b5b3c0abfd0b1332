"""Clients of a stack under fire: each asks in its way, goes on elsewhere when its edge is gone, checks what it gets."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx2

from tests.system.arrivals import Arrival, Client, News
from tests.system.questions import Question, Questions

# How a client may behave, and how often.
HABITS = {
    "streams": 8,
    "waits for the whole": 2,
    "gives up with its edge": 2,
    "leaves": 2,
    "leaves it running": 1,
    "cancels": 2,
    "is in a hurry": 1,
}
# What an edge may say while something is down, and means: ask again.
PASSING = ("broker_unavailable", "no_worker", "queue_full")
TIMEOUT_S = 90
HURRY_S = 1.0
_AGAIN_S = 0.2


class Wrong(AssertionError):
    """What a client got is not what it should."""


@dataclass
class Asked:
    """One request of one client. Its idempotency key is sent unless the client gives up with its edge."""

    question: Question
    key: str
    url: str
    habit: str
    arrival: Arrival = field(default_factory=Arrival)
    num_edges_lost: int = 0

    def __str__(self) -> str:
        return f"request {self.arrival.request_id or 'unknown'} (key {self.key}, {self.habit})"


class Callers:
    """Clients, each asking one question after the other at one of two edges."""

    def __init__(self, edge_urls: list[str], seed: int, num_tokens: int) -> None:
        self._edge_urls = edge_urls
        self._seed = seed
        self._questions = Questions(num_tokens)
        self.counts: Counter[str] = Counter()
        self.asked: list[Asked] = []

    async def run(self, num_clients: int, is_over: asyncio.Event) -> None:
        """Returns once `is_over` and every client has its last answer. Raises Wrong."""
        async with asyncio.TaskGroup() as group:
            for number in range(num_clients):
                group.create_task(self._ask_on(random.Random(self._seed + number), is_over))

    async def _ask_on(self, chances: random.Random, is_over: asyncio.Event) -> None:
        news = News()
        limits = httpx2.Timeout(2 * TIMEOUT_S, connect=2)
        async with httpx2.AsyncClient(timeout=limits, trust_env=False) as http:
            client = Client(http, news.tell)
            while not is_over.is_set():
                [habit] = chances.choices(list(HABITS), list(HABITS.values()))
                key = f"{self._seed}-{len(self.asked)}"
                asked = Asked(self._questions.next(), key, chances.choice(self._edge_urls), habit)
                self.asked.append(asked)
                await self._have(client, news, asked, chances)
                self.counts[habit] += 1

    async def _have(self, client: Client, news: News, asked: Asked, chances: random.Random) -> None:
        """Ask one question in one way, and check what comes of it."""
        match asked.habit:
            case "leaves" | "leaves it running":
                then = "cancel" if asked.habit == "leaves" else "continue"
                await self._leave(client, news, asked, {"X-InferFlux-On-Disconnect": then}, chances.randrange(1, 20))
            case "gives up with its edge":
                await self._try(client, asked)
            case "cancels":
                await self._cancel(client, news, asked, chances)
            case "is in a hurry":
                await self._persist(client, asked, {**asked.question.body, "timeout": HURRY_S})
                _check(asked, may_end_as="deadline_exceeded")
            case _:
                await self._persist(client, asked, {**asked.question.body, "timeout": TIMEOUT_S})
                _check(asked)

    async def _try(self, client: Client, asked: Asked) -> None:
        """Without a key: an edge that goes away takes the answer with it, one that stays drops the journal after it."""
        try:
            await client.ask(asked.url, asked.question.body, into=asked.arrival)
        except httpx2.TransportError:
            _check_beginning(asked)
            return
        if asked.arrival.error is not None and asked.arrival.error["code"] in PASSING:
            _check_beginning(asked)
        else:
            _check(asked)

    async def _persist(self, client: Client, asked: Asked, body: dict[str, object]) -> None:
        """Ask until there is an answer; when the connection breaks, at the other edge."""
        gives_up_at = time.monotonic() + 2 * TIMEOUT_S
        while time.monotonic() < gives_up_at:
            try:
                await self._go_on(client, asked, body)
            except httpx2.TransportError:
                asked.num_edges_lost += 1
                self.counts["edge lost"] += 1
                asked.url = next(url for url in self._edge_urls if url != asked.url)
            else:
                if asked.arrival.error is None or asked.arrival.error["code"] not in PASSING:
                    return
                self.counts[f"asked again: {asked.arrival.error['code']}"] += 1
            await asyncio.sleep(_AGAIN_S)
        raise Wrong(f"{asked}: no answer within {2 * TIMEOUT_S} s")

    async def _go_on(self, client: Client, asked: Asked, body: dict[str, object]) -> None:
        """The whole answer from where it is asked now: the same key joins what was begun elsewhere."""
        before = asked.arrival
        if asked.habit == "waits for the whole":
            asked.arrival = await client.ask_whole(asked.url, body, key=asked.key)
        else:
            asked.arrival = Arrival(request_id=before.request_id)
            await client.ask(asked.url, body, key=asked.key, into=asked.arrival)
        if not asked.arrival.error and not asked.arrival.text.startswith(before.text):
            raise Wrong(f"{asked}: {asked.arrival.text!r} does not begin with {before.text!r}, which was sent before")

    async def _leave(self, client: Client, news: News, asked: Asked, headers: dict[str, str], num_pieces: int) -> None:
        asking = asyncio.create_task(
            client.ask(asked.url, asked.question.body, key=asked.key, into=asked.arrival, headers=headers)
        )
        asking.add_done_callback(lambda _: news.tell())
        await news.until(lambda: asking.done() or len(asked.arrival.pieces) >= num_pieces)
        asking.cancel()
        await asyncio.wait({asking})
        if not asking.cancelled():
            asking.exception()  # its edge was killed first
        _check_beginning(asked)

    async def _cancel(self, client: Client, news: News, asked: Asked, chances: random.Random) -> None:
        """DELETE in the middle, at any edge. The stream ends with the error, or was through before."""
        num_pieces = chances.randrange(1, 20)
        asking = asyncio.create_task(self._persist(client, asked, asked.question.body))
        asking.add_done_callback(lambda _: news.tell())
        await news.until(lambda: asking.done() or len(asked.arrival.pieces) >= num_pieces)
        while not asking.done():
            try:
                await client.cancel(chances.choice(self._edge_urls), asked.arrival.request_id)
                break
            except httpx2.TransportError:
                await asyncio.sleep(_AGAIN_S)
        await asking
        _check(asked, may_end_as="cancelled")


def _check(asked: Asked, *, may_end_as: str | None = None) -> None:
    """The answer is the undisturbed one, or its beginning if it may have ended before."""
    arrival = asked.arrival
    if arrival.error is not None and arrival.error["code"] == may_end_as:
        _check_beginning(asked)
        return
    if arrival.error is not None:
        raise Wrong(f"{asked}: {arrival.error}")
    if not arrival.is_whole or (arrival.text, arrival.reason) != (asked.question.text, asked.question.reason):
        raise Wrong(f"{asked}: {arrival.text!r} ({arrival.reason}) is not {asked.question.text!r}")


def _check_beginning(asked: Asked) -> None:
    if not asked.question.text.startswith(asked.arrival.text):
        raise Wrong(f"{asked}: {asked.arrival.text!r} is not the beginning of {asked.question.text!r}")
