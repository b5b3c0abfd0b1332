"""The stream of one reader of a call: chunks, comments between them, an end."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from starlette.types import Receive, Scope, Send

from producer.edge.calls import Call
from producer.edge.changes import Changes
from producer.edge.departure import Departure
from producer.edge.errors import Interrupted
from producer.edge.narrator import Narrator
from producer.edge.place import PlaceUnknown
from producer.edge.reader import Reader
from producer.edge.services import Services
from producer.edge.sse import EventStream, error_event
from producer.edge.stream import StreamWriter
from schemas.errors import ErrorCode, ServingError
from schemas.events import Cancelled


class CallStream(EventStream):
    """The stream of one reader of a call. Whatever ends it, the reader is detached."""

    def __init__(
        self, services: Services, call: Call, reader: Reader, departure: Departure, headers: dict[str, str]
    ) -> None:
        self._services = services
        self._call = call
        self._on_disconnect = reader.on_disconnect
        self._source = stream_events(services, call, reader.start)
        super().__init__(
            self._source,
            departure,
            headers=headers,
            stalled_after_s=services.config.slow_reader_timeout_s,
            farewell=lambda: error_event(_too_slow(services, call)),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
            # Sends to a client that is gone succeed silently, and so do those into the buffers of a connection.
            self._call.delivered = self._call.delivered and await self.was_taken()
        finally:
            if self.left or self.cut:
                self._call.delivered = False
            if self.cut:
                self._services.lifecycle.reader_cut(self._call)
            # Whoever is cut by us has not left: it can come back for the rest.
            # Not in the generator: an await there is cancelled together with it.
            self._services.lifecycle.detach(self._call, left=self.left, on_disconnect=self._on_disconnect)
            async with aclosing(self._source):
                pass


async def stream_events(
    services: Services, call: Call, start: Sequence[int] | None = None
) -> AsyncGenerator[bytes, None]:
    """The events of a call from `start` on, comments between them, to `[DONE]` or an error event."""
    writer = StreamWriter(call, services.filters, start)
    narrator = Narrator(call, services.position_of, services.rates, services.config.comment_interval_s)
    stream_metrics = services.metrics.for_stream(call.model)
    changes = Changes(call)
    drain = services.drain
    try:
        if not call.has_output:
            yield await narrator.comment(at_once=True)
        while True:
            events = writer.take()
            if events:
                if writer.is_over:
                    break
                yield events
                # After the token has gone: books can wait, it cannot.
                services.lifecycle.note_first_token(call)
                stream_metrics.note(writer.num_tokens, time.monotonic())
                narrator.note_sent()
            elif comment := await narrator.comment():
                yield comment
            if call.failure is not None:
                raise call.failure
            if drain.is_expired:
                raise drain.interruption(call, writer.last_event_id)
            if not writer.is_behind:
                await changes.wait(writer.length, narrator.wait_s())
        services.lifecycle.note_first_token(call)
        stream_metrics.note(writer.num_tokens, time.monotonic(), is_last=True)
        for part in writer.ended_early():
            services.lifecycle.end_part(part, Cancelled("filtered"))
        yield events + writer.end()
        call.delivered = True
    except (Interrupted, PlaceUnknown) as error:
        # Says nothing about the call, which may even have ended meanwhile: its end was not delivered.
        yield error_event(error)
    except ServingError as error:
        if not call.is_over and not drain.is_expired:
            services.lifecycle.cancel(call, "stream_failed")
        if error.code is ErrorCode.CANCELLED and call.first_failure is not None:
            error = call.first_failure  # a part that was cancelled for another one, which says why
        yield error_event(error)
        call.delivered = call.is_over
    finally:
        changes.close()


def _too_slow(services: Services, call: Call) -> Interrupted:
    """The client itself knows which event it had last."""
    config = services.config
    why = (
        f"The stream was cut: its client left the {config.stream_buffer_bytes} bytes that may wait for it untaken for "
        f"{config.slow_reader_timeout_s:g} s."
    )
    return Interrupted(ErrorCode.SLOW_READER, why, call.request_id, None)
