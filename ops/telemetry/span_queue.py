"""Ended spans on their way out: a bounded queue and a thread that sends what is in it, in batches."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from schemas.tracing import Outcome

_log = logging.getLogger("inferflux.tracing")

MAX_WAITING = 4096
# Encoding holds the interpreter, so a batch is only as long as tokens of a stream can wait.
_MAX_BATCH = 64
_EVERY_S = 1.0
# Between two batches of a full queue, so that serving comes first.
_BREATH_S = 0.005
_CLOSE_S = 2.0


class SpanQueue(SpanProcessor):
    """Never blocks who ends a span: what finds the queue full is dropped and counted."""

    def __init__(self, exporter: SpanExporter, *, max_waiting: int = MAX_WAITING, every_s: float = _EVERY_S) -> None:
        self._exporter = exporter
        self._max_waiting = max_waiting
        self._every_s = every_s
        self._waiting: deque[ReadableSpan] = deque()
        self._wake = threading.Event()
        self._is_closing = False
        self._is_failing = False
        self._count: Callable[[Outcome, int], None] = lambda outcome, number: None
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def report_to(self, count: Callable[[Outcome, int], None]) -> None:
        self._count = count

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        pass

    def on_end(self, span: ReadableSpan) -> None:
        if self._is_closing or len(self._waiting) >= self._max_waiting:
            self._count(Outcome.DROPPED, 1)
            return
        self._waiting.append(span)
        if len(self._waiting) >= _MAX_BATCH:
            self._wake.set()

    def shutdown(self) -> None:
        """Send what waits, for two seconds at most; what is left is dropped."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(_CLOSE_S)
        if (left := len(self._waiting)) > 0:
            self._count(Outcome.DROPPED, left)
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nobody waits for spans."""
        return True

    def _run(self) -> None:
        while not self._is_closing:
            self._wake.wait(self._every_s)
            self._wake.clear()
            self._send_all()
        self._send_all()

    def _send_all(self) -> None:
        while self._waiting:
            self._send([self._waiting.popleft() for _ in range(min(_MAX_BATCH, len(self._waiting)))])
            if not self._is_closing:
                time.sleep(_BREATH_S)

    def _send(self, batch: list[ReadableSpan]) -> None:
        try:
            is_sent = self._exporter.export(batch) is SpanExportResult.SUCCESS
        except Exception as error:
            # Whatever the exporter runs into, the thread goes on.
            _log.debug("spans not sent: %s", error)
            is_sent = False
        self._count(Outcome.EXPORTED if is_sent else Outcome.FAILED, len(batch))
        if is_sent is self._is_failing:
            self._is_failing = not is_sent
            _log.log(
                logging.WARNING if self._is_failing else logging.INFO,
                "traces cannot be sent; requests are not concerned" if self._is_failing else "traces are sent again",
            )
