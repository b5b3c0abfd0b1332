"""Streams that run while something is done to a stack, and what must hold of them afterwards."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.system.arrivals import Arrival, Client
from tests.system.journals import Journal, Journals, check_one_end
from tests.system.questions import Question, Questions
from tests.system.stack import Stack


@dataclass
class Stream:
    """A question on its way. With its idempotency key the journal stays after it was answered."""

    question: Question
    key: str
    arrival: Arrival = field(default_factory=Arrival)

    @property
    def request_id(self) -> str:
        return self.arrival.request_id

    @property
    def is_over(self) -> bool:
        return self.arrival.is_whole or self.arrival.error is not None


class Load:
    """Asks questions of one stack; `salt` makes its idempotency keys its own."""

    def __init__(self, stack: Stack, client: Client, questions: Questions, salt: str) -> None:
        self._stack = stack
        self._client = client
        self._questions = questions
        self._salt = salt
        self.streams: list[Stream] = []

    @property
    def live(self) -> list[Stream]:
        return [stream for stream in self.streams if not stream.is_over]

    @property
    def live_keys(self) -> list[str]:
        return [stream.key for stream in self.live]

    @property
    def all_speak(self) -> bool:
        """Whether there are streams and each has brought text, so that a kill cuts it at a token of its own."""
        return bool(self.live) and all(stream.arrival.pieces for stream in self.live)

    async def ask(self) -> Stream:
        """One question; returns when it is answered."""
        stream = Stream(self._questions.next(), f"{self._salt}-{len(self.streams)}")
        self.streams.append(stream)
        await self._client.ask(self._stack.url, stream.question.body, key=stream.key, into=stream.arrival)
        return stream

    @asynccontextmanager
    async def running(self, num_streams: int) -> AsyncIterator[None]:
        """So many streams at a time, one after the other, as long as the body runs; returns when all have ended."""
        is_over = asyncio.Event()

        async def ask_on() -> None:
            while not is_over.is_set():
                await self.ask()

        # Who fails takes the body along: what it waits for may never come.
        async with asyncio.TaskGroup() as group:
            for _ in range(num_streams):
                group.create_task(ask_on())
            yield
            is_over.set()

    async def check(self, journals: Journals) -> list[Journal]:
        """Every answer is the undisturbed one, and every journal ended once. Returns the journals."""
        for stream in self.streams:
            assert stream.arrival.error is None, (stream.key, stream.arrival.error)
            assert stream.arrival.text == stream.question.text, (stream.key, stream.request_id)
            assert stream.arrival.reason == stream.question.reason, (stream.key, stream.request_id)
            assert stream.arrival.is_whole, (stream.key, stream.request_id)
        found = await journals.read_all(stream.request_id for stream in self.streams)
        for journal in found:
            check_one_end(journal)
        return found
