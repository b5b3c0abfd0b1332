"""The queue of one model as a worker sees it: whether it is made, and whether anything is left in it."""

from typing import Any

from broker.connection import Connection
from broker.errors import ApiError
from broker.subjects import STREAM_REQUESTS, consumer_name
from schemas.requests import PriorityClass

_CONSUMER_NOT_FOUND = 10014


async def unsettled(connection: Connection, model: str, *, lanes: int = 1) -> int:
    """Requests of a model that wait, or that some worker has and has not ended. Raises BrokerError."""
    looks = [await _look(connection, name) for name in _names(model, lanes)]
    return sum(info["num_pending"] + info["num_ack_pending"] for info in looks if info is not None)


async def has_queue(connection: Connection, model: str, *, lanes: int = 1) -> bool:
    """Whether all consumers of a model are made. Raises BrokerError."""
    for name in _names(model, lanes):
        if await _look(connection, name) is None:
            return False
    return True


def _names(model: str, lanes: int) -> list[str]:
    return [consumer_name(model, priority, str(lane)) for priority in PriorityClass for lane in range(lanes)]


async def _look(connection: Connection, name: str) -> dict[str, Any] | None:
    """What the broker says of a consumer; None when there is none."""
    try:
        return await connection.api(f"CONSUMER.INFO.{STREAM_REQUESTS}.{name}")
    except ApiError as error:
        if error.err_code != _CONSUMER_NOT_FOUND:
            raise
        return None
