"""Whether a process traces, and what becomes of its spans when the collector is slow or gone."""

import threading
from collections import Counter
from collections.abc import Sequence

import pytest

from ops.errors import CannotStart
from ops.settings.errors import SettingsError
from ops.settings.loader import load
from ops.settings.settings import TracingSettings
from ops.telemetry import tracing
from ops.telemetry.tracing import open_tracer, require_packages
from schemas.tracing import NO_TRACER, Outcome, SpanKind, read_traceparent

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
WAIT_S = 30


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "nonsense",
        TRACEPARENT.upper(),
        TRACEPARENT + "-00",
        TRACEPARENT.replace("00-", "ff-", 1),
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01",
    ],
)
def test_what_is_no_traceparent_starts_a_new_trace(text: str | None) -> None:
    assert read_traceparent(text) is None


def test_a_traceparent_is_passed_on_without_a_tracer() -> None:
    assert read_traceparent(f" {TRACEPARENT} ") == TRACEPARENT
    span = NO_TRACER.start("x", SpanKind.SERVER, parent=TRACEPARENT)
    assert (span.traceparent, span.trace_id) == (TRACEPARENT, None)


def test_nothing_is_traced_unless_configured() -> None:
    settings = load({}, {}).tracing
    assert settings.endpoint is None
    with open_tracer(settings, "e1") as tracer:
        assert tracer is NO_TRACER


def test_the_standard_variables_count() -> None:
    settings = load({ENDPOINT: "http://collector:4318", "OTEL_SERVICE_NAME": "llm"}, {}).tracing
    assert (settings.endpoint, settings.service_name) == ("http://collector:4318", "llm")
    assert load({ENDPOINT: "", "OTEL_SERVICE_NAME": ""}, {}).tracing.endpoint is None
    with pytest.raises(SettingsError, match=f"{ENDPOINT}.*INFERFLUX_TRACING__ENDPOINT|say different things"):
        load({ENDPOINT: "http://a", "INFERFLUX_TRACING__ENDPOINT": "http://b"}, {})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (ENDPOINT, "collector:4318"),
        (ENDPOINT, "grpc://collector"),
        (ENDPOINT, "http://"),
        (ENDPOINT, "http://x:port"),
        ("INFERFLUX_TRACING__SAMPLE_RATIO", "1.1"),
        ("INFERFLUX_TRACING__SAMPLE_RATIO", "nan"),
    ],
)
def test_what_cannot_be_is_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"tracing\.\w+ \(variable {variable}\)"):
        load({variable: value}, {})


def test_without_the_packages_the_start_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_PACKAGES", ("no_such_package.trace",))
    require_packages(TracingSettings(None, 1.0, "x"))
    with pytest.raises(CannotStart, match="run: make setup PARTS=otel"):
        require_packages(TracingSettings("http://x", 1.0, "x"))


class Counts:
    """What became of spans, as a tracer tells it from its threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.numbers: Counter[Outcome] = Counter()

    def __call__(self, outcome: Outcome, number: int) -> None:
        with self._changed:
            self.numbers[outcome] += number
            self._changed.notify_all()

    def until(self, outcome: Outcome, number: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.numbers[outcome] >= number, WAIT_S), self.numbers


@pytest.mark.otel
class TestSpanQueue:
    @pytest.fixture(autouse=True)
    def needs_otel(self) -> None:
        pytest.importorskip("opentelemetry.sdk", reason="otel is not installed")

    def test_a_collector_that_stands_still_costs_spans_and_nothing_else(self) -> None:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

        from ops.telemetry.span_queue import SpanQueue

        gate, asked = threading.Event(), threading.Event()

        class Slow(SpanExporter):
            def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
                asked.set()
                assert gate.wait(WAIT_S)
                return SpanExportResult.SUCCESS

        counts = Counts()
        queue = SpanQueue(Slow(), max_waiting=8, every_s=0.01)
        queue.report_to(counts)
        queue.on_end(ReadableSpan("first"))
        assert asked.wait(WAIT_S)
        for _ in range(20):
            queue.on_end(ReadableSpan("more"))
        assert counts.numbers == {Outcome.DROPPED: 12}
        gate.set()
        counts.until(Outcome.EXPORTED, 9)
        queue.shutdown()
        queue.on_end(ReadableSpan("late"))
        assert counts.numbers == {Outcome.EXPORTED: 9, Outcome.DROPPED: 13}

    def test_a_collector_that_fails_is_asked_again(self) -> None:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

        from ops.telemetry.span_queue import SpanQueue

        class Failing(SpanExporter):
            answers = iter([SpanExportResult.FAILURE, None, SpanExportResult.SUCCESS])

            def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
                answer = next(self.answers)
                if answer is None:
                    raise OSError("broken")
                return answer

        counts = Counts()
        queue = SpanQueue(Failing(), every_s=0.01)
        queue.report_to(counts)
        for outcome, number in ((Outcome.FAILED, 1), (Outcome.FAILED, 2), (Outcome.EXPORTED, 1)):
            queue.on_end(ReadableSpan("span"))
            counts.until(outcome, number)
        queue.shutdown()

    def test_the_end_of_a_process_waits_for_no_collector(self) -> None:
        """Nothing listens there; the spans are lost, and counted, and the process ends."""
        counts = Counts()
        with open_tracer(TracingSettings("http://127.0.0.1:1", 1.0, "x"), "e1") as tracer:
            tracer.report_to(counts)
            span = tracer.start("x", SpanKind.SERVER, parent=TRACEPARENT)
            assert span.traceparent is not None and span.traceparent.split("-")[1] == TRACEPARENT.split("-")[1]
            span.end()
            span.set("late", 1)
            span.end(error="late")
        assert counts.numbers[Outcome.FAILED] + counts.numbers[Outcome.DROPPED] <= 1

    def test_a_share_of_new_traces_is_recorded_and_others_decide_for_themselves(self) -> None:
        with open_tracer(TracingSettings("http://127.0.0.1:1", 0.0, "x"), "e1") as tracer:
            begun = tracer.start("x", SpanKind.SERVER, parent=None)
            assert begun.trace_id is None and int(str(begun.traceparent)[-2:], 16) & 1 == 0
            joined = tracer.start("x", SpanKind.SERVER, parent=TRACEPARENT)
            assert joined.trace_id == TRACEPARENT.split("-")[1]
            unsampled = tracer.start("x", SpanKind.SERVER, parent=f"{TRACEPARENT[:-2]}00")
            assert unsampled.trace_id is None
