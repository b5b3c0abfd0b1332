"""A call whose edge died before it had queued it: whoever asks again brings the same body, and it is queued then."""

import time
from dataclasses import replace

from broker.work_queue import WorkQueue
from producer.edge.calls import Call, Part
from producer.edge.plan import Plan
from producer.edge.translate import requests_of


def has_to_begin(call: Call) -> bool:
    """Whether another edge's call has parts that no worker has ever claimed."""
    return call.is_followed and any(_has_to_begin(part) for part in call.parts)


async def submit_what_is_not_begun(call: Call, plan: Plan, queue: WorkQueue, traceparent: str | None) -> None:
    """Queue the parts of another edge's call that no worker has ever claimed. `plan` is that of the same body.

    They carry the message id of the first submission, so one that is queued already stays alone; a second copy would
    only find the end of the first. Raises ServingError.
    """
    deadline_s = time.time() + call.deadline_at - time.monotonic()
    requests = requests_of(
        plan,
        request_id=call.request_id,
        edge="",
        model=call.model,
        created=call.header.created,
        deadline_ms=int(deadline_s * 1000),
        identity=call.identity,
        traceparent=traceparent,
    )
    for part, request in zip(call.parts, requests, strict=True):
        if _has_to_begin(part):
            part.seq = await queue.submit(replace(request, edge=part.edge))


def _has_to_begin(part: Part) -> bool:
    return part.view.fold.started_seq == 0 and not part.is_over
