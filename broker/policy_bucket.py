"""The bucket `policy`: one entry, sealed by its writer, replaced by compare-and-set and followed by every edge."""

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from broker.connection import Connection
from broker.errors import StreamFull
from broker.inbox import status
from broker.outcomes import Expect
from broker.reader import JournalReader, StartAt
from broker.subjects import BUCKET_POLICY, bucket_stream, bucket_subject

KEY = "document"
HISTORY = 64
_SUBJECT = bucket_subject(BUCKET_POLICY, KEY)
_STREAM = bucket_stream(BUCKET_POLICY)
_REMEMBERED = 256


class PolicyEntry(NamedTuple):
    """A version of the entry. `seq` is its sequence in the bucket; `stored_at` is Unix time by the broker's clock."""

    seq: int
    data: bytes
    stored_at: float


class PolicyBucket:
    """`latest` is the newest entry, None without one. `on_news` is called on the loop after it has changed."""

    def __init__(self, connection: Connection, on_news: Callable[[], None]) -> None:
        self._connection = connection
        self._on_news = on_news
        self._news = asyncio.Event()
        self._seen: deque[bytes] = deque(maxlen=_REMEMBERED)
        self.latest: PolicyEntry | None = None
        self._reader = JournalReader(
            connection,
            _STREAM,
            _SUBJECT,
            self._take,
            start=StartAt.last_per_subject(),
            on_recreated=self._on_recreated,
        )

    @property
    def seq(self) -> int:
        """Of the newest entry, 0 without one: what the next one has to follow."""
        return self.latest.seq if self.latest is not None else 0

    async def start(self) -> None:
        """Attach and wait for what the bucket holds; waits while it does not exist."""
        await self._reader.start()
        await self._reader.caught_up()

    async def close(self) -> None:
        await self._reader.close()

    async def put(self, data: bytes, expect_seq: int, *, drop_history: bool = False) -> int:
        """Write the entry that follows `expect_seq`; its sequence. With `drop_history` all earlier ones are dropped.

        Raises WrongSequence when another came first (`has_seen` tells whether it was this one), BrokerUnavailable,
        StreamFull, PayloadTooLarge.
        """
        headers = {"Nats-Rollup": "sub"} if drop_history else None
        try:
            seq = await self._put(data, expect_seq, headers)
        except StreamFull:
            # Rather without earlier versions than without this one, which may revoke a key.
            await self._connection.api(f"STREAM.PURGE.{_STREAM}", {"filter": _SUBJECT, "keep": 1})
            seq = await self._put(data, expect_seq, headers)
        await self.wait_for(seq)
        return seq

    async def _put(self, data: bytes, expect_seq: int, headers: dict[str, str] | None) -> int:
        ack = await self._connection.publish_acked(_SUBJECT, data, headers=headers, expect=Expect(expect_seq))
        return ack.seq

    async def wait_for(self, seq: int, timeout_s: float = 1.0) -> bool:
        """Wait until the entry of this sequence or a later one has come in; False when that takes longer."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.seq < seq:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    def has_seen(self, data: bytes) -> bool:
        """Whether exactly this was the entry at some time while it was followed."""
        return _digest(data) in self._seen

    async def history(self) -> list[PolicyEntry]:
        """All versions that are kept, oldest first. Raises BrokerError."""
        body = {"next_by_subj": _SUBJECT, "batch": HISTORY}
        answers = await self._connection.collect(f"$JS.API.DIRECT.GET.{_STREAM}", json.dumps(body).encode())
        entries = []
        for answer in answers:
            headers = answer.headers or {}
            if status(answer) is None and "KV-Operation" not in headers:
                stored_at = datetime.fromisoformat(headers["Nats-Time-Stamp"]).timestamp()
                entries.append(PolicyEntry(int(headers["Nats-Sequence"]), answer.data, stored_at))
        return entries

    def _take(self, subject: str, seq: int, payload: bytes, headers: dict[str, str] | None) -> None:
        if headers and "KV-Operation" in headers:
            self.latest = PolicyEntry(seq, b"", self._reader.stored_ns / 1e9)
        else:
            self.latest = PolicyEntry(seq, payload, self._reader.stored_ns / 1e9)
            self._seen.append(_digest(payload))
        self._tell()

    def _on_recreated(self) -> None:
        self.latest = None
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._on_news()


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
