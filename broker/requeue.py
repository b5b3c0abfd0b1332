"""A dead letter goes back into the queue, as a new request of the same owner."""

import hashlib
import logging
import time
from dataclasses import replace
from typing import Any

from broker.connection import Connection
from broker.dead_letters import DeadLetter, DeadLetters
from broker.errors import ApiError
from broker.subjects import STREAM_REQUESTS, STREAM_TOKENS, consumer_name, journal
from broker.work_queue import WorkQueue
from schemas.codec import encode_event
from schemas.errors import ErrorCode, ServingError
from schemas.events import Accepted
from schemas.requests import GenerateRequest

_log = logging.getLogger("inferflux.broker.requeue")

# Owns the journals of requests that no edge has accepted; any edge can follow them.
DLQ_EDGE = "dlq"
_CONSUMER_NOT_FOUND = 10014
_WRITE_S = 10.0


async def requeue(connection: Connection, letter: DeadLetter) -> str:
    """Queue a dead letter's request again and remove the letter; returns the new request's id. Role edge.

    The old journal has ended for good, so it gets a journal of its own, where its owner finds the answer by the new id.
    That id follows from the letter: whoever tries again after an unknown outcome does not make it run twice. Raises
    BlobMissing and CodecError when there is nothing to queue, ServingError when it is not taken, BrokerError.
    """
    letters = DeadLetters(connection)
    request = _renewed(await letters.request(letter), letter)
    await _check_queue(connection, request)
    subjects = journal(DLQ_EDGE, request.request_id)
    accepted = encode_event(_accepted(request, letter.accepted))
    await connection.publish_acked(subjects.head, accepted, give_up_s=_WRITE_S)
    try:
        await WorkQueue(connection).submit(request)
    except ServingError as error:
        if error.code is ErrorCode.QUEUE_FULL:  # for sure, so nothing will be written there
            await connection.api(f"STREAM.PURGE.{STREAM_TOKENS}", {"filter": subjects.all})
        raise
    await letters.drop(letter)
    _log.info("dead letter %s is queued again as %s", letter.request_id, request.request_id)
    return request.request_id


def _renewed(request: GenerateRequest, letter: DeadLetter) -> GenerateRequest:
    """The same wish under another id, with as much time as it had."""
    now = time.time()
    allowed_ms = request.deadline_ms - request.created * 1000
    return replace(
        request,
        request_id=hashlib.sha256(f"{letter.request_id}\0{letter.seq}".encode()).hexdigest()[:32],
        edge=DLQ_EDGE,
        created=int(now),
        deadline_ms=int(now) * 1000 + allowed_ms,
        submission=0,
    )


def _accepted(request: GenerateRequest, before: Accepted | None) -> Accepted:
    """What an edge needs to answer in the original shape. Of a call with several prompts this is one, by itself."""
    options: dict[str, Any] = {
        **(before.options if before is not None else {}),
        "call": request.request_id,
        "part": 0,
        "parts": 1,
        "priority": str(request.priority),
        "deadline_ms": request.deadline_ms,
        "on_disconnect": "continue",
    }
    return Accepted(
        request_id=request.request_id,
        owner=request.identity.owner,
        endpoint=str(request.endpoint),
        model=request.model,
        created=request.created,
        options=options,
        body_hash="",
        idempotency_key=None,
    )


async def _check_queue(connection: Connection, request: GenerateRequest) -> None:
    """Nobody would ever take a request of a model that is not known any more."""
    name = consumer_name(request.model, request.priority)
    try:
        await connection.api(f"CONSUMER.INFO.{STREAM_REQUESTS}.{name}")
    except ApiError as error:
        if error.err_code != _CONSUMER_NOT_FOUND:
            raise
        text = f"the model {request.model!r} is not known any more"
        raise ServingError(ErrorCode.MODEL_NOT_FOUND, text) from None
