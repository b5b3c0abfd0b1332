"""What edges tell each other over core NATS: calls of the last minute that found no worker, by model.

Nobody else knows of them: they never reached the queue. One small JSON object a message, `{"<model>": calls}`.
"""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from nats.aio.msg import Msg

from broker.connection import Connection
from broker.subjects import EDGES_REFUSED, edge_refused_subject, is_valid_id
from broker.worker_control import Listening

_log = logging.getLogger("inferflux.broker.edge_refused")

Refused = Mapping[str, int]

_MAX_PENDING = 4096
_MAX_PENDING_BYTES = 4 << 20
_MANY = 1 << 31


async def announce_refused(connection: Connection, edge_id: str, refused: Refused) -> None:
    """Tell the other edges; empty when there are none any more. Unacked."""
    await connection.publish(edge_refused_subject(edge_id), json.dumps(dict(refused), separators=(",", ":")).encode())


async def listen_for_refused(connection: Connection, on_refused: Callable[[str, Refused], None]) -> Listening:
    """Call `on_refused(edge, calls)` for every announcement, one's own included. On the loop; must be quick."""

    async def on_message(message: Msg) -> None:
        edge_id = message.subject.rpartition(".")[2]
        try:
            refused = parse_refused(message.data)
        except ValueError as error:
            _log.warning("announcement on %s: %s", message.subject, error)
            return
        if is_valid_id(edge_id):
            on_refused(edge_id, refused)

    subscription = await connection.subscribe(
        EDGES_REFUSED, on_message, max_pending=_MAX_PENDING, max_pending_bytes=_MAX_PENDING_BYTES
    )
    return Listening(subscription)


def parse_refused(payload: bytes) -> dict[str, int]:
    """What an announcement says. Raises ValueError."""
    try:
        document: Any = json.loads(payload)
        if isinstance(document, dict) and all(type(n) is int and 0 <= n <= _MANY for n in document.values()):
            return document
    except RecursionError:
        pass
    raise ValueError("not a count for each model")
