"""What became of the lines of a job, read from the broker. Role edge."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from nats.aio.msg import Msg

from broker.connection import Connection
from broker.errors import ApiError, BrokerError, BrokerTimeout, BrokerUnavailable, NoResponders
from broker.inbox import status
from broker.subjects import STREAM_RESULTS, ResultEnd, result_subject
from schemas.batch import BatchResult, decode_result
from schemas.codec import CodecError

_log = logging.getLogger("inferflux.broker.batch_results")

_PAGE = 256
_PAGE_BYTES = 4 << 20
_GIVE_UP_S = 10.0
_RETRY_S = 0.05


class ResultCounts(NamedTuple):
    """Lines of a job that were answered, and that came to nothing."""

    done: int
    failed: int


class BatchResults:
    """By direct get: a copy of the stream may lack for a moment what was written last."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def counts(self, tenant: str, job: str) -> ResultCounts:
        """How many results there are. Raises BrokerUnavailable."""
        return ResultCounts(
            await self._count(result_subject(tenant, job, "*", ResultEnd.DONE)),
            await self._count(result_subject(tenant, job, "*", ResultEnd.FAILED)),
        )

    async def read(
        self, tenant: str, job: str, after_seq: int = 0, *, end: ResultEnd | None = None
    ) -> AsyncIterator[BatchResult]:
        """The results of a job in the order in which they came, all or those of one end, page by page.

        `after_seq`: only those behind this place in the stream. Raises BrokerUnavailable.
        """
        subject = result_subject(tenant, job, "*", end or "*")
        while True:
            messages, num_left = await self._page(subject, after_seq + 1, _PAGE)
            for message in messages:
                after_seq = int((message.headers or {})["Nats-Sequence"])
                try:
                    yield decode_result(message.data)
                except CodecError as error:
                    _log.warning("result %d cannot be read: %s", after_seq, error)
            if not messages or not num_left:
                return

    async def exists(self, tenant: str, job: str, index: int) -> bool:
        """Whether the result of a line is there. Raises BrokerUnavailable."""
        return await self._count(result_subject(tenant, job, index, "*")) > 0

    async def delete(self, tenant: str, job: str) -> int:
        """Drop the results of a job; how many there were. Raises BrokerUnavailable."""
        body = {"filter": result_subject(tenant, job, "*", "*")}
        try:
            purged: int = (await self._connection.api(f"STREAM.PURGE.{STREAM_RESULTS}", body))["purged"]
        except (ApiError, BrokerTimeout, NoResponders) as error:
            raise BrokerUnavailable(f"the results of {job} were not dropped: {error}") from error
        return purged

    async def _count(self, subject: str) -> int:
        messages, num_left = await self._page(subject, 1, 1)
        return len(messages) + num_left

    async def _page(self, subject: str, first_seq: int, most: int) -> tuple[list[Msg], int]:
        """Results from a place in the stream on, and how many there are behind them."""
        query = {"seq": first_seq, "batch": most, "max_bytes": _PAGE_BYTES, "next_by_subj": subject}
        deadline = time.monotonic() + _GIVE_UP_S
        while True:
            try:
                return await self._ask(query)
            except (BrokerTimeout, NoResponders, ApiError) as error:
                failure: BrokerError = error
            left = deadline - time.monotonic()
            if left <= 0:
                raise BrokerUnavailable(f"results cannot be read: {failure}") from failure
            await asyncio.sleep(min(_RETRY_S, left))
            await self._connection.wait_connected(max(0.0, deadline - time.monotonic()))

    async def _ask(self, query: dict[str, Any]) -> tuple[list[Msg], int]:
        *messages, end = await self._connection.collect(
            f"$JS.API.DIRECT.GET.{STREAM_RESULTS}", json.dumps(query).encode()
        )
        headers = end.headers or {}
        match status(end):
            case "404":
                return [], 0
            case "204":
                return messages, int(headers.get("Nats-Num-Pending", "0"))
            case other:
                raise ApiError(int(other or 0), 0, f"direct get: {headers.get('Description', '')}")
