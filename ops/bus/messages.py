"""A message of the broker as people and tools see it. Text of a request only when it was asked for."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from broker.headers import BLOB, REQUEST_ID
from broker.peeking import Seen
from broker.subjects import (
    BUCKET_MODELS,
    BUCKET_WORKERS,
    STREAM_DLQ,
    STREAM_REQUESTS,
    STREAM_TOKENS,
    bucket_stream,
    parse_dlq,
    parse_journal,
)
from ops.cli.letters import prompt_size
from schemas.codec import CodecError, decode_event, decode_request
from schemas.events import Event

_REGISTRY = (bucket_stream(BUCKET_MODELS), bucket_stream(BUCKET_WORKERS))
_REQUESTS = (STREAM_REQUESTS, STREAM_DLQ)
# Of an event: what a client or a model wrote, or what only a client should know.
_TEXTS = ("pieces", "token_ids", "idempotency_key", "body_hash")


def describe(stream: str, seen: Seen, *, with_text: bool) -> dict[str, Any]:
    """One message as an object. `kind` is what it is, `body` what it says, both None where that is not told."""
    kind, body, problem = _read(stream, seen, with_text)
    return {
        "stream": stream,
        "seq": seen.seq,
        "time": round(seen.at, 3),
        "subject": seen.subject,
        "request_id": _request_id(stream, seen),
        "kind": kind,
        "bytes": len(seen.payload),
        "headers": {name: value for name, value in seen.headers.items() if not name.startswith("Nats-")},
        "body": body,
        "problem": problem,
    }


def line(message: Mapping[str, Any]) -> str:
    """The same for people, on one line."""
    clock = time.strftime("%H:%M:%S", time.localtime(message["time"]))
    seq = "" if message["seq"] is None else f" #{message['seq']}"
    parts = [f"{clock}{seq} {message['subject']}", message["kind"] or f"{message['bytes']} bytes"]
    parts += [f"{name}={value}" for name, value in message["headers"].items()]
    if message["body"] is not None:
        parts.append(json.dumps(message["body"], ensure_ascii=False))
    if message["problem"] is not None:
        parts.append(f"({message['problem']})")
    return "  ".join(parts)


def _read(stream: str, seen: Seen, with_text: bool) -> tuple[str | None, Any, str | None]:
    try:
        if stream == STREAM_TOKENS:
            event = decode_event(seen.payload)
            return type(event).__name__, _event(event, with_text), None
        if stream in _REQUESTS and seen.payload and BLOB not in seen.headers:
            return "Request", _request(seen.payload, with_text), None
    except CodecError as error:
        return None, None, str(error)
    if stream in _REGISTRY or with_text:
        return None, _plain(seen.payload), None
    return None, None, None


def _event(event: Event, with_text: bool) -> dict[str, Any]:
    fields = event._asdict()
    if "usage" in fields:
        fields["usage"] = fields["usage"]._asdict()
    if not with_text:
        tokens = {"tokens": len(fields["token_ids"])} if "token_ids" in fields else {}
        fields = {name: value for name, value in fields.items() if name not in _TEXTS} | tokens
    return fields


def _request(payload: bytes, with_text: bool) -> dict[str, Any]:
    request = decode_request(payload)
    return {
        "model": request.model,
        "endpoint": str(request.endpoint),
        "priority": str(request.priority),
        "owner": request.identity.owner,
        "parameters": asdict(request.sampling),
        "prompt": asdict(request.prompt) if with_text else prompt_size(request.prompt),
    }


def _plain(payload: bytes) -> Any:
    """JSON, or text; None for neither, and for nothing."""
    try:
        text = payload.decode()
        return json.loads(text) if text[:1] in ("{", "[") else text or None
    except UnicodeDecodeError:
        return None
    except ValueError:
        return text


def _request_id(stream: str, seen: Seen) -> str | None:
    if REQUEST_ID in seen.headers:
        return seen.headers[REQUEST_ID]
    try:
        if stream == STREAM_TOKENS:
            return parse_journal(seen.subject).request_id
        return parse_dlq(seen.subject).request_id if stream == STREAM_DLQ else None
    except ValueError:
        return None
