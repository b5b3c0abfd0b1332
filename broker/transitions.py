"""One JSON line per step in a request's life on `inferflux.evt.>`, for people and tools. Never text of a request."""

import json
import time

from broker.connection import Connection
from broker.subjects import event_subject


class Transitions:
    """Publishes unacked, and nobody waits for it: a lost line changes nothing."""

    def __init__(self, connection: Connection, source: str) -> None:
        self._connection = connection
        self._source = source

    def note(self, request_id: str, event: str, **numbers: float | str | None) -> None:
        """Say that `event` (one word) happened to a request, with the numbers that matter (and names, never text)."""
        line = {"time": round(time.time(), 3), "request_id": request_id, "event": event, "source": self._source}
        self._connection.publish_soon(
            event_subject(request_id, event), json.dumps({**line, **numbers}, separators=(",", ":")).encode()
        )
