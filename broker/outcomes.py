"""How a write into a stream can end, told by the server's `err_code`: its classes and texts vary."""

import json
from typing import Any, NamedTuple

from broker.errors import ApiError, BrokerError, StreamFull, StreamMissing, WrongSequence

_WRONG_SEQUENCE = 10071
_STORE_FAILED = 10077  # the text tells a cap ("… exceeded") from a failing disk
_NO_RESOURCES = (10002, 10023, 10028, 10047)
_STREAM_NOT_FOUND = 10059
_ANOTHER_IN_FLIGHT = 10164


class PubAck(NamedTuple):
    """A message is stored. `duplicate`: it was before this call, at this sequence, under the same message id."""

    stream: str
    seq: int
    duplicate: bool = False


class Expect(NamedTuple):
    """Condition of a write: the last record on `subject` (None: the message's own) has sequence `seq`; 0 for none."""

    seq: int
    subject: str | None = None


def parse_answer(data: bytes) -> dict[str, Any]:
    """A JetStream answer as a dict. Raises ApiError when it is a refusal."""
    answer: dict[str, Any] = json.loads(data)
    error = answer.get("error")
    if error is not None:
        raise ApiError(error.get("code", 0), error.get("err_code", 0), error.get("description", ""))
    return answer


def is_transient(error: ApiError) -> bool:
    """Whether the same publish can go better: no leader, ingest full, another write in flight, a disk that fails."""
    if error.err_code in _NO_RESOURCES:
        return False
    if error.err_code == _STORE_FAILED:
        return "exceeded" not in error.description
    # A bad request by class, yet it decides nothing: another conditional write is still on its way.
    return error.err_code == _ANOTHER_IN_FLIGHT or error.code in (408, 429, 503)


def as_final(error: ApiError) -> BrokerError:
    """The named error for a refusal that trying again does not change."""
    arguments = (error.code, error.err_code, error.description)
    if error.err_code == _WRONG_SEQUENCE:
        return WrongSequence(*arguments)
    if error.err_code == _STORE_FAILED or error.err_code in _NO_RESOURCES:
        return StreamFull(*arguments)
    if error.err_code == _STREAM_NOT_FOUND:
        return StreamMissing(error.description)
    return error


def publish_headers(headers: dict[str, str] | None, msg_id: str | None, expect: Expect | None) -> dict[str, str] | None:
    if msg_id is None and expect is None:
        return headers
    result = dict(headers or {})
    if msg_id is not None:
        result["Nats-Msg-Id"] = msg_id
    if expect is not None:
        result["Nats-Expected-Last-Subject-Sequence"] = str(expect.seq)
        if expect.subject is not None:
            result["Nats-Expected-Last-Subject-Sequence-Subject"] = expect.subject
    return result
