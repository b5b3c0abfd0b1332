"""How one HTTP request reads a call."""

from dataclasses import dataclass

from producer.edge.calls import OnDisconnect
from producer.edge.place import event_id


@dataclass(frozen=True, slots=True)
class Reader:
    """`start`: for each choice the first token to send, None for everything. `ignored` are parameters passed over.

    `on_disconnect` counts when this is the last reader and leaves.
    """

    stream: bool
    queue_updates: bool
    on_disconnect: OnDisconnect
    start: tuple[int, ...] | None = None
    ignored: tuple[str, ...] = ()

    @property
    def last_event_id(self) -> str | None:
        return event_id(self.start or ())
