"""A journal fed by hand, for what only reads journals."""

import time

from producer.edge.calls import Call, OnDisconnect, Part
from producer.edge.shapes import Header
from schemas.events import Delta, Event, Failed, Finished, Progress, Started, Usage
from schemas.fold import Fold
from schemas.requests import Endpoint, Identity, PriorityClass


class HandFedView:
    """Everything is there before anybody waits."""

    def __init__(self) -> None:
        self.fold = Fold()
        self.progress: Progress | None = None
        self.last_activity = time.monotonic()

    async def changed(self, length: int, timeout_s: float | None) -> bool:
        return True

    def close(self) -> None:
        return

    def feed(self, *events: Event) -> None:
        for event in events:
            self.fold.feed(event)

    def start(self) -> None:
        self.feed(Started("r", "w1", "ack", "fp_test"))

    def say(self, *pieces: str) -> None:
        index = self.fold.length
        self.feed(Delta("r", index, list(range(index, index + len(pieces))), list(pieces)))

    def finish(self, reason: str = "stop", prompt_tokens: int = 3) -> None:
        fold = self.fold
        usage = Usage(prompt_tokens, fold.length)
        self.feed(Finished("r", reason, usage, list(fold.token_ids), list(fold.pieces)))

    def fail(self, code: str = "internal") -> None:
        self.feed(Failed("r", code, "it broke", False))


def make_call(
    *views: HandFedView, endpoint: Endpoint = Endpoint.CHAT, include_usage: bool = False, model: str = "echo"
) -> Call:
    now = time.monotonic()
    return Call(
        header=Header(endpoint, "abc", 1_700_000_000, model, "default", None),
        identity=Identity("alice"),
        priority=PriorityClass.NORMAL,
        parts=[Part(f"abc-{index}", "e1", view) for index, view in enumerate(views)],
        include_usage=include_usage,
        accepted_at=now,
        deadline_at=now + 600,
        on_disconnect=OnDisconnect.CANCEL,
    )


def started_view() -> HandFedView:
    view = HandFedView()
    view.start()
    return view
