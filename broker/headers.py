"""Headers of request messages: who, what, how urgent and where to, so that `nats sub` can be read by a person."""

from typing import NamedTuple

from schemas.requests import GenerateRequest

REQUEST_ID = "Ifx-Request-Id"
TENANT = "Ifx-Tenant"
PRIORITY = "Ifx-Priority"
DEADLINE = "Ifx-Deadline"
EDGE = "Ifx-Edge"
# "off" on a request that is not journaled.
JOURNAL = "Ifx-Journal"
# The body is not in the message but in the blob stream.
BLOB = "Ifx-Blob"
# Of a dead letter: why it was given up, after how many workers, and what its edge had accepted, as JSON.
REASON = "Ifx-Reason"
ATTEMPTS = "Ifx-Attempts"
ACCEPTED = "Ifx-Accepted"
CONTENT_TYPE = "Content-Type"
TRACEPARENT = "traceparent"
MSGPACK = "application/msgpack"


def parse_headers(block: bytes) -> dict[str, str]:
    """The headers of a stored message, from the block that the server keeps."""
    _, *lines = block.decode(errors="replace").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return {name: value.strip() for name, _, value in pairs}


class RequestRef(NamedTuple):
    """Which journal a request writes: enough to claim it before its body is read."""

    edge: str
    request_id: str


def request_headers(request: GenerateRequest) -> dict[str, str]:
    headers = {
        REQUEST_ID: request.request_id,
        TENANT: request.identity.tenant,
        PRIORITY: request.priority.value,
        DEADLINE: str(request.deadline_ms),
        EDGE: request.edge,
        CONTENT_TYPE: MSGPACK,
    }
    if not request.journaled:
        headers[JOURNAL] = "off"
    if request.traceparent is not None:
        headers[TRACEPARENT] = request.traceparent
    return headers
