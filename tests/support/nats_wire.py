"""The NATS protocol by hand, for tests that ask what a server refuses: no library that hides or retries it."""

import asyncio
import contextlib
import json
import re

from broker.credentials import Login

_VIOLATION = re.compile(r'-ERR \'Permissions Violation for (Publish|Subscription) to "([^"]+)"')


class NatsWire:
    """One connection. `heard` are the subjects of messages that came, `refused_*` those that the server named."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._num_subscriptions = 0
        self.heard: list[str] = []
        self.refused_publishes: set[str] = set()
        self.refused_subscriptions: set[str] = set()

    @classmethod
    async def open(cls, port: int, login: Login) -> "NatsWire":
        """Raises PermissionError when the login is not taken."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        await reader.readline()
        self = cls(reader, writer)
        options = {"user": login.user, "pass": login.password, "verbose": False, "pedantic": False, "headers": True}
        writer.write(f"CONNECT {json.dumps(options)}\r\n".encode())
        try:
            await self.flush()
        except (PermissionError, ConnectionError) as error:
            await self.close()
            raise PermissionError(str(error)) from None
        return self

    def publish(self, subject: str, payload: bytes = b"") -> None:
        self._writer.write(b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(payload), payload))

    def subscribe(self, subject: str) -> int:
        self._num_subscriptions += 1
        self._writer.write(f"SUB {subject} {self._num_subscriptions}\r\n".encode())
        return self._num_subscriptions

    def unsubscribe(self, number: int) -> None:
        self._writer.write(f"UNSUB {number}\r\n".encode())

    async def flush(self) -> None:
        """Returns once the server has seen all of it, with its errors and messages taken in."""
        self._writer.write(b"PING\r\n")
        await self._writer.drain()
        while True:
            line = (await self._reader.readline()).decode().rstrip()
            if line == "PONG":
                return
            await self._take(line)

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    async def _take(self, line: str) -> None:
        if line.startswith(("MSG ", "HMSG ")):
            words = line.split()
            await self._reader.readexactly(int(words[-1]) + 2)
            self.heard.append(words[1])
        elif found := _VIOLATION.match(line):
            (self.refused_publishes if found[1] == "Publish" else self.refused_subscriptions).add(found[2])
        elif line.startswith("-ERR") or not line:
            raise PermissionError(line or "closed")
        elif line == "PING":
            self._writer.write(b"PONG\r\n")
