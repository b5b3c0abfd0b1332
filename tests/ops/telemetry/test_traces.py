"""Traces of real processes, as a collector gets them: one for each request, through edge, queue and worker."""

import json
import os
import signal
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.ops.telemetry.conftest import Observed
from tests.support.otlp import ReceivedSpan
from tests.system.stack import KEY, until

pytestmark = [pytest.mark.timeout(240), pytest.mark.otel]
SERVER, INTERNAL, PRODUCER, CONSUMER = 2, 1, 4, 5
TRACE = "0af7651916cd43dd8448eb211c80319c"
CLIENT = "b7ad6b7169203331"
SECRET = "of-nobodys-business"


def ask(observed: Observed, *, traceparent: str | None = None, **body: Any) -> Any:
    """A chat; the open answer."""
    message = {"role": "user", "content": f"What is {SECRET}?"}
    document = {"model": "echo", "messages": [message], "ignore_eos": True, "max_tokens": 5, **body}
    request = urllib.request.Request(f"{observed.stack.url}/v1/chat/completions", data=json.dumps(document).encode())
    request.add_header("Authorization", f"Bearer {KEY}")
    request.add_header("Content-Type", "application/json")
    if traceparent is not None:
        request.add_header("traceparent", traceparent)
    return urllib.request.urlopen(request, timeout=60)


def delete(observed: Observed, request_id: str) -> None:
    request = urllib.request.Request(f"{observed.stack.url}/v1/requests/{request_id}", method="DELETE")
    request.add_header("Authorization", f"Bearer {KEY}")
    urllib.request.urlopen(request, timeout=60).close()


def spans_of(observed: Observed, request_id: str, *names: str) -> dict[str, ReceivedSpan]:
    """The spans of a request's trace, by name, once all of `names` are there."""

    def find(spans: list[ReceivedSpan]) -> list[ReceivedSpan] | None:
        traces = {span.trace_id for span in spans if span.attributes.get("inferflux.request_id") == request_id}
        mine = [span for span in spans if span.trace_id in traces]
        return mine if {span.name for span in mine} >= set(names) else None

    found = observed.collector.until(find)
    assert len({span.trace_id for span in found}) == 1
    return {span.name: span for span in found}


ALL = ("POST /v1/chat/completions", "admission", "publish inferflux.req", "queue", "process inferflux.req")
ALL_OF_AN_ANSWER = (*ALL, "prefill", "decode")


def test_one_trace_covers_edge_queue_and_worker(observed: Observed) -> None:
    with ask(observed, traceparent=f"00-{TRACE}-{CLIENT}-01") as answer:
        request_id, body = answer.headers["x-request-id"], json.load(answer)
    spans = spans_of(observed, request_id, *ALL_OF_AN_ANSWER)
    http, admission, publish, queue, process = (spans[name] for name in ALL)
    prefill, decode = spans["prefill"], spans["decode"]
    assert {span.trace_id for span in spans.values()} == {TRACE}
    assert http.parent_id == CLIENT
    assert {admission.parent_id, publish.parent_id} == {http.span_id}
    assert {queue.parent_id, process.parent_id} == {publish.span_id}
    assert {prefill.parent_id, decode.parent_id} == {process.span_id}
    assert [http.kind, admission.kind, publish.kind, process.kind] == [SERVER, INTERNAL, PRODUCER, CONSUMER]
    assert http.process.startswith("edge") and process.process.startswith("w") and http.service == "llm"
    assert queue.start_ns <= queue.end_ns <= prefill.end_ns == decode.start_ns <= decode.end_ns <= process.end_ns
    told = http.attributes
    assert told["http.request.method"] == "POST"
    assert (told["http.route"], told["http.response.status_code"]) == ("/v1/chat/completions", 200)
    assert (told["gen_ai.operation.name"], told["gen_ai.request.model"]) == ("chat", "echo")
    assert told["gen_ai.usage.input_tokens"] == body["usage"]["prompt_tokens"]
    assert told["gen_ai.usage.output_tokens"] == body["usage"]["completion_tokens"] == 5
    assert told["gen_ai.response.finish_reasons"] == ["length"]
    assert decode.attributes["gen_ai.usage.output_tokens"] == 5
    assert process.attributes["inferflux.attempt"] == 1
    assert process.attributes["inferflux.outcome"] == "finished"
    assert process.attributes["messaging.destination.name"] == "inferflux.req.echo.normal.0"
    assert {"claimed", "first_token"} <= set(http.events)
    assert "first_token" in decode.events
    named = [span.attributes["inferflux.request_id"] for span in (http, publish, queue, process)]
    assert named == [request_id] * 4
    assert not any(span.is_error for span in spans.values())
    assert SECRET.encode() not in observed.collector.raw
    assert body["choices"][0]["message"]["content"].encode() not in observed.collector.raw


def test_a_caller_that_does_not_trace_is_not_traced(observed: Observed) -> None:
    unsampled = "4bf92f3577b34da6a3ce929d0e0e4736"
    with ask(observed, traceparent=f"00-{unsampled}-{CLIENT}-00") as answer:
        answer.read()
    with ask(observed, traceparent="nonsense", stream=True) as answer:
        request_id = answer.headers["x-request-id"]
        answer.read()
    # What came earlier was sent earlier, by each process.
    spans = spans_of(observed, request_id, *ALL_OF_AN_ANSWER)
    assert spans[ALL[0]].parent_id == ""
    assert unsampled not in {span.trace_id for span in observed.collector.spans}


def test_a_refused_call_is_a_span_that_says_so(observed: Observed) -> None:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        ask(observed, model="unknown")
    refusal.value.close()
    request_id = refusal.value.headers["x-request-id"]
    spans = spans_of(observed, request_id, ALL[0], "admission")
    assert set(spans) == {ALL[0], "admission"}
    assert spans[ALL[0]].attributes["http.response.status_code"] == 404
    assert spans["admission"].attributes["inferflux.refusal"] == "model_not_found"
    assert not spans[ALL[0]].is_error


def test_a_killed_worker_leaves_one_trace(observed: Observed) -> None:
    """The one that goes on belongs to the same trace, as its second attempt."""
    with ask(observed, stream=True, max_tokens=5000) as answer:
        request_id = answer.headers["x-request-id"]
        while not answer.readline().startswith(b"data:"):
            pass
        first = until(lambda: first_start(observed, request_id), "the edge has told who began with it")
        # What it has said of the queue is out; the rest dies with it.
        spans_of(observed, request_id, "queue")
        os.kill(next(each["pid"] for each in observed.stack.run["workers"] if each["id"] == first), signal.SIGKILL)
        resumed = until(lambda: second_start(observed, request_id, first), "another worker goes on", limit_s=60)
        delete(observed, request_id)
        answer.read()
    spans = spans_of(observed, request_id, ALL[0], "process inferflux.req")
    process = spans["process inferflux.req"]
    assert process.parent_id == spans["publish inferflux.req"].span_id
    assert (process.attributes["inferflux.attempt"], process.process) == (2, resumed)
    assert spans["queue"].process == first
    assert spans[ALL[0]].events["claimed"]["inferflux.worker"] in (first, resumed)


def first_start(observed: Observed, request_id: str) -> str | None:
    lines = observed.log(event="started", request_id=request_id)
    return next((str(line["process"]) for line in lines if str(line["process"]).startswith("w")), None)


def second_start(observed: Observed, request_id: str, first: str) -> str | None:
    """The worker whose own log says that it has begun with a request which another one had."""
    others = {line["process"] for line in observed.log(event="started", request_id=request_id)} - {first}
    return next((process for process in others if process.startswith("w")), None)


def test_every_line_about_a_request_names_it(observed: Observed) -> None:
    with ask(observed) as answer:
        request_id = answer.headers["x-request-id"]
        answer.read()

    def steps() -> bool:
        lines = observed.log(request_id=request_id)
        told = {(line["process"][:1], line["event"]) for line in lines}
        return told >= {("e", "accepted"), ("e", "ended"), ("w", "started"), ("w", "finished")}

    until(steps, "edge and worker have told of the request")
    of_requests = {"accepted", "started", "first_token", "ended", "finished", "refused", "cancelled", "released"}
    unnamed = [line for line in observed.log() if line["event"] in of_requests and not line.get("request_id")]
    assert unnamed == []
