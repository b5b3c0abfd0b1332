"""Requests and their answers over one wildcard subscription.

Unlike the client library's own, an outstanding request fails at once when the connection is lost or the server refuses
its subject, and one request may have several answers.
"""

import asyncio
from itertools import count

from nats.aio.msg import Msg

from broker.client import Client
from broker.errors import BrokerError, BrokerTimeout, NoResponders, NotConnected, PayloadTooLarge, Refused

_NO_RESPONDERS = "503"


class _Call:
    """One outstanding request; `answers` grows until `is_last` says so."""

    __slots__ = ("answers", "done", "is_batch", "subject")

    def __init__(self, subject: str, is_batch: bool) -> None:
        self.subject = subject
        self.is_batch = is_batch
        self.answers: list[Msg] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, message: Msg) -> None:
        if self.done.done():
            return
        self.answers.append(message)
        if not self.is_batch or status(message) is not None:
            self.done.set_result(None)

    def fail(self, error: BrokerError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Inbox:
    """Owned by one Connection, used from its loop. `prefix` None: a fresh one that only the broker may write to."""

    def __init__(self, client: Client, prefix: str | None = None) -> None:
        self._client = client
        self._prefix = prefix or client.new_inbox()
        self._tokens = count()
        self._calls: dict[str, _Call] = {}

    async def start(self) -> None:
        # Without a queue, and so without limits: dropping an answer that we await would look like a timeout.
        await self._client.hear(f"{self._prefix}.*", self._take)

    async def request(
        self, subject: str, payload: bytes, timeout_s: float, headers: dict[str, str] | None = None
    ) -> Msg:
        """The answer to one request. Raises NoResponders, BrokerTimeout, PayloadTooLarge, Refused."""
        answer = (await self._call(_Call(subject, is_batch=False), payload, timeout_s, headers))[0]
        if status(answer) == _NO_RESPONDERS:
            raise NoResponders(f"nobody answers on {subject}")
        return answer

    async def collect(self, subject: str, payload: bytes, timeout_s: float) -> list[Msg]:
        """All answers to a batch request; the last one is the status that ends it. Raises as `request` does."""
        answers = await self._call(_Call(subject, is_batch=True), payload, timeout_s, None)
        if status(answers[-1]) == _NO_RESPONDERS:
            raise NoResponders(f"nobody answers on {subject}")
        return answers

    def disconnected(self) -> None:
        """Fail what is outstanding: the answers are lost."""
        for call in self._calls.values():
            call.fail(NotConnected("connection lost while waiting for an answer"))

    def refused(self, subject: str, reason: str) -> None:
        """Fail what waits for an answer to a publish that the server did not allow."""
        for call in self._calls.values():
            if call.subject.lower() == subject.lower():  # the client library lowers the server's text
                call.fail(Refused(reason))

    async def _call(self, call: _Call, payload: bytes, timeout_s: float, headers: dict[str, str] | None) -> list[Msg]:
        if not self._client.is_connected:
            raise NotConnected("not connected")
        if len(payload) > self._client.max_payload:
            raise PayloadTooLarge(f"{len(payload)} bytes, the server takes {self._client.max_payload}")
        token = str(next(self._tokens))
        self._calls[token] = call
        try:
            await self._client.publish(call.subject, payload, reply=f"{self._prefix}.{token}", headers=headers)
            async with asyncio.timeout(timeout_s):
                await call.done
        except TimeoutError as error:
            raise BrokerTimeout(f"no answer on {call.subject} in {timeout_s:g} s") from error
        finally:
            del self._calls[token]
        return call.answers

    def _take(self, message: Msg) -> None:
        call = self._calls.get(message.subject.rpartition(".")[2])
        if call is not None:
            call.take(message)


def status(message: Msg) -> str | None:
    """The status code of a message from the server itself, such as 404; None for an ordinary one."""
    return message.headers.get("Status") if message.headers else None
