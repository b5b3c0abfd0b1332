"""What edges tell each other over core NATS: prompt tokens they have waiting in the queue, by model and class.

A depth tells requests, not their size, and only the edge that submitted a request knows that. One small JSON object a
message, so that a person can listen in: `{"<model>": {"<class>": tokens}}`. Not stored; whoever misses one waits for
the next.
"""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from nats.aio.msg import Msg

from broker.connection import Connection
from broker.subjects import EDGES_WAITING, edge_waiting_subject, is_valid_id
from broker.worker_control import Listening
from schemas.requests import PriorityClass

_log = logging.getLogger("inferflux.broker.edge_waiting")

WaitingTokens = Mapping[tuple[str, PriorityClass], int]

# What may lie unread, should the loop stand still: news of so many edges is old news.
_MAX_PENDING = 4096
_MAX_PENDING_BYTES = 4 << 20
# More than any queue holds; keeps a sum of them a small number.
_MAX_TOKENS = 1 << 48


class NotWaitingTokens(ValueError):
    """A message that is none of ours."""


async def announce_waiting(connection: Connection, edge_id: str, tokens: WaitingTokens) -> None:
    """Tell the other edges all this one has waiting; empty when that is nothing any more. Unacked."""
    models: dict[str, dict[str, int]] = {}
    for (model, priority), number in tokens.items():
        models.setdefault(model, {})[str(priority)] = number
    payload = json.dumps(models, separators=(",", ":")).encode()
    await connection.publish(edge_waiting_subject(edge_id), payload)


async def listen_for_waiting(connection: Connection, on_waiting: Callable[[str, WaitingTokens], None]) -> Listening:
    """Call `on_waiting(edge, tokens)` for every announcement, one's own included. On the loop; must be quick."""

    async def on_message(message: Msg) -> None:
        edge_id = message.subject.rpartition(".")[2]
        try:
            tokens = parse_waiting(message.data)
        except NotWaitingTokens as error:
            _log.warning("announcement on %s: %s", message.subject, error)
            return
        if is_valid_id(edge_id):
            on_waiting(edge_id, tokens)

    subscription = await connection.subscribe(
        EDGES_WAITING, on_message, max_pending=_MAX_PENDING, max_pending_bytes=_MAX_PENDING_BYTES
    )
    return Listening(subscription)


def parse_waiting(payload: bytes) -> dict[tuple[str, PriorityClass], int]:
    """What an announcement says. Raises NotWaitingTokens."""
    try:
        models: Any = json.loads(payload)
        return {
            (model, PriorityClass(priority)): _checked(number)
            for model, classes in models.items()
            for priority, number in classes.items()
        }
    except (ValueError, AttributeError, RecursionError) as error:
        raise NotWaitingTokens(str(error)[:200]) from None


def _checked(number: Any) -> int:
    if type(number) is not int or not 0 <= number <= _MAX_TOKENS:
        raise ValueError("not a number of tokens")
    return number
