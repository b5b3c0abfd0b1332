"""Whether anything is left in the queue of a model that is no longer served."""

from broker.connection import Connection
from broker.errors import ApiError
from broker.subjects import STREAM_REQUESTS, consumer_name
from schemas.requests import PriorityClass

_CONSUMER_NOT_FOUND = 10014


async def unsettled(connection: Connection, model: str, *, lanes: int = 1) -> int:
    """Requests of a model that wait, or that some worker has and has not ended. Raises BrokerError."""
    total = 0
    for priority in PriorityClass:
        for lane in range(lanes):
            name = consumer_name(model, priority, str(lane))
            try:
                info = await connection.api(f"CONSUMER.INFO.{STREAM_REQUESTS}.{name}")
            except ApiError as error:
                if error.err_code != _CONSUMER_NOT_FOUND:
                    raise
                continue
            total += info["num_pending"] + info["num_ack_pending"]
    return total
