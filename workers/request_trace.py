"""A delivery of a request as spans: how long it lay in the queue, and the work on it, parted into prompt and answer.

    publish (edge) --> queue
                   --> process --> prefill
                               --> decode

The spans of prompt and answer are made at the end, from times that were noted on the way: a step pays nothing for them.
"""

import time

from broker.headers import TRACEPARENT
from broker.lease import Lease
from schemas.requests import GenerateRequest
from schemas.tracing import SpanKind, Tracer, read_traceparent
from workers.engine.messages import Completed, Emission, Errored, Tokens

# Ends of a delivery that are no failure of the request or of this worker.
_IN_ORDER = frozenset(
    {"finished", "cancelled", "released", "deferred", "unfit", "settled_before", "expired", "unheard"}
)


class RequestTrace:
    """Used by a session, from its loop. What it is told after the end is ignored."""

    def __init__(self, tracer: Tracer, request: GenerateRequest, lease: Lease, worker_id: str) -> None:
        self._tracer = tracer
        self._parent = read_traceparent(request.traceparent or lease.headers.get(TRACEPARENT))
        self._queued_ns = lease.stored_ns
        self._delivered_ns = time.time_ns()
        self._submitted_ns: int | None = None
        self._first_token_ns: int | None = None
        self._done_ns: int | None = None
        self._done: Completed | None = None
        self._is_over = False
        self._facts = {
            "inferflux.request_id": request.request_id,
            "inferflux.worker": worker_id,
            "gen_ai.request.model": request.model,
            "messaging.system": "nats",
            "messaging.destination.name": lease.subject,
            "messaging.message.id": request.request_id,
        }
        self._span = tracer.start(
            "process inferflux.req",
            SpanKind.CONSUMER,
            parent=self._parent,
            attributes={
                **self._facts,
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "inferflux.deliveries": lease.num_delivered,
            },
            at_ns=self._delivered_ns,
        )

    def claimed(self, attempt: int) -> None:
        """The request is ours, as the `attempt`th worker's. What a killed worker leaves is the time before it began."""
        self._span.set("inferflux.attempt", attempt)
        self._span.event("claimed")
        if attempt == 1:
            span = self._tracer.start(
                "queue", SpanKind.INTERNAL, parent=self._parent, attributes=self._facts, at_ns=self._queued_ns
            )
            # The broker's clock may be ahead of ours.
            span.end(at_ns=max(self._delivered_ns, self._queued_ns))

    def submitted(self) -> None:
        """The engine has it; what an earlier start did counts no more."""
        self._submitted_ns = time.time_ns()
        self._first_token_ns = None

    def emitted(self, emission: Emission) -> None:
        if self._first_token_ns is None and isinstance(emission, Tokens | Completed):
            self._first_token_ns = time.time_ns()
        if isinstance(emission, Completed | Errored):
            self._done_ns = time.time_ns()
            self._done = emission if isinstance(emission, Completed) else None

    def end(self, outcome: str) -> None:
        """The delivery is settled, given back or left alone."""
        if self._is_over:
            return
        self._is_over = True
        if self._span.trace_id is not None:
            self._span.set("inferflux.outcome", outcome)
            self._end_phases()
            if self._done is not None:
                self._span.set("gen_ai.response.finish_reasons", [self._done.reason.value])
        self._span.end(error=None if outcome in _IN_ORDER else outcome)

    def _end_phases(self) -> None:
        if self._submitted_ns is None:
            return
        done_ns = self._done_ns or time.time_ns()
        prefill = self._tracer.start(
            "prefill", SpanKind.INTERNAL, parent=self._span.traceparent, at_ns=self._submitted_ns
        )
        if self._done is not None:
            prefill.set("gen_ai.usage.input_tokens", self._done.usage.prompt_tokens)
            prefill.set("inferflux.cached_tokens", self._done.usage.cached_tokens)
        prefill.end(at_ns=self._first_token_ns or done_ns)
        if self._first_token_ns is None:
            return
        decode = self._tracer.start(
            "decode", SpanKind.INTERNAL, parent=self._span.traceparent, at_ns=self._first_token_ns
        )
        decode.event("first_token", at_ns=self._first_token_ns)
        if self._done is not None:
            decode.set("gen_ai.usage.output_tokens", self._done.usage.completion_tokens)
        decode.end(at_ns=done_ns)
