"""Every name on the broker: build and parse. Pure.

inferflux.req.<model>.<priority>.<lane>         requests, a work queue
inferflux.tok.<edge>.<request>.{head,run,ev}    the journal of a request
inferflux.blob.<id>.<n>                         chunks of bodies too large for a message
inferflux.dlq.<model>.<request>                 requests that kill workers
inferflux.audit.<writer>                        who did what, a chain for each edge that writes
inferflux.limit.minute.<who>.<id>.<kind>.<n>    counters over all edges; <n> is a part of the window, or a lease
inferflux.limit.day.<who>.<id>.<kind>.<day>     those of a day, counted from 1970-01-01 UTC
inferflux.batch.<tenant>.<model>                lines of offline batches; stored, in a work queue, as
inferflux.batch.<lane>.<tenant>.<model>         with a lane for each tenant and model
inferflux.result.<tenant>.<job>.<line>.<end>    what became of each line; <end> is done or failed
inferflux.file.<tenant>.<id>.{head,<n>}         files of tenants, a head and chunks
inferflux.ctl.{cancel.<request>,worker.<id>}    control, not stored
inferflux.live.<edge>.<request>                 tokens that may enter no stream, to the edge that waits for them
inferflux.heard.<inbox>.<n>                     its answers, not stored either
inferflux.ctl.edge.waiting.<edge>               what waits in the queue, as each edge tells the others; not stored
inferflux.evt.<request>.<event>                 transitions for people and tools, not stored
"""

import re
import secrets
from enum import StrEnum
from typing import Literal, NamedTuple

from schemas.requests import PriorityClass

STREAM_REQUESTS = "INFERFLUX_REQUESTS"
STREAM_TOKENS = "INFERFLUX_TOKENS"
STREAM_BLOBS = "INFERFLUX_BLOBS"
STREAM_DLQ = "INFERFLUX_DLQ"
STREAM_AUDIT = "INFERFLUX_AUDIT"
STREAM_LIMITS = "INFERFLUX_LIMITS"
STREAM_LIMITS_DAILY = "INFERFLUX_LIMITS_DAILY"
STREAM_BATCH = "INFERFLUX_BATCH"
STREAM_RESULTS = "INFERFLUX_RESULTS"
STREAM_FILES = "INFERFLUX_FILES"
# Of the queue of lines; a deployment's consumers, hence fixed.
BATCH_LANES = 16
BUCKET_MODELS = "models"
BUCKET_WORKERS = "workers"
BUCKET_POLICY = "policy"
BUCKET_BATCHES = "batches"

CANCEL_ALL = "inferflux.ctl.cancel.*"
EDGES_WAITING = "inferflux.ctl.edge.waiting.*"
EDGES_REFUSED = "inferflux.ctl.edge.refused.*"
EVENTS_ALL = "inferflux.evt.>"
CLAIMS_ALL = "inferflux.tok.*.*.run"
DLQ_ALL = "inferflux.dlq.>"
AUDIT_ALL = "inferflux.audit.>"
BATCH_ALL = "inferflux.batch.*.*"
FILES_ALL = "inferflux.file.*.*.*"
# Which lane is the server's choice, by a hash of tenant and model.
BATCH_STORED_AS = f"inferflux.batch.{{{{partition({BATCH_LANES},1,2)}}}}.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}"
RESULTS_ALL = "inferflux.result.*.*.*.*"
LIMITS_ALL = "inferflux.limit.minute.>"
LIMITS_DAILY_ALL = "inferflux.limit.day.>"
LIVE_ALL = "inferflux.live.*.*"
HEARD_ALL = "inferflux.heard.*.*"

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_UNSAFE = re.compile(rb"[^A-Za-z0-9_-]")
_ENCODED = re.compile(r"(?:[A-Za-z0-9_-]|=[0-9A-F]{2})+")
_ESCAPE = re.compile(rb"=([0-9A-F]{2})")
_HEARD = re.compile(r"inferflux\.heard\.[0-9a-f]{16}\.[0-9]+")
_ACK = re.compile(r"\$JS\.ACK(?:\.[A-Za-z0-9_=-]+){7,10}")
_KINDS = ("head", "run", "ev")


class JournalSubjects(NamedTuple):
    """The three subjects of one request's journal, and the wildcard over them."""

    head: str
    run: str
    ev: str
    all: str


class JournalName(NamedTuple):
    """A journal subject taken apart; `kind` is head, run or ev."""

    edge: str
    request_id: str
    kind: str


class RequestName(NamedTuple):
    """A request subject, or a consumer's name, taken apart."""

    model: str
    priority: PriorityClass
    lane: str


class DeadLetterName(NamedTuple):
    """The subject of a dead letter, taken apart."""

    model: str
    request_id: str


class ResultEnd(StrEnum):
    """How a line ended: with an answer, or with an error."""

    DONE = "done"
    FAILED = "failed"


class BatchName(NamedTuple):
    """The subject under which a line of a batch is stored, taken apart: whose it is, and for which model."""

    lane: int
    tenant: str
    model: str


def is_valid_id(text: str) -> bool:
    """Whether `text` may be a request, edge or worker id: it goes into subjects as it is."""
    return _ID.fullmatch(text) is not None


def encode_token(text: str) -> str:
    """One subject token for any text: UTF-8 bytes outside A-Z a-z 0-9 - _ as =XX. Raises ValueError on empty text."""
    if not text:
        raise ValueError("empty name")
    return _UNSAFE.sub(lambda match: b"=%02X" % match.group()[0], text.encode()).decode()


def decode_token(token: str) -> str:
    """Inverse of `encode_token`. Raises ValueError on anything that it does not write."""
    if _ENCODED.fullmatch(token) is None:
        raise ValueError(f"not an encoded name: {token!r}")
    text = _ESCAPE.sub(lambda match: bytes([int(match.group(1), 16)]), token.encode()).decode()
    if encode_token(text) != token:
        raise ValueError(f"not an encoded name: {token!r}")
    return text


def request_subject(model: str, priority: PriorityClass, lane: str = "0") -> str:
    return f"inferflux.req.{encode_token(model)}.{priority}.{lane}"


def parse_request(subject: str) -> RequestName:
    """Take a request subject apart. Raises ValueError."""
    match subject.split("."):
        case ["inferflux", "req", model, priority, lane]:
            return RequestName(decode_token(model), PriorityClass(priority), lane)
    raise ValueError(f"not a request subject: {subject!r}")


def consumer_name(model: str, priority: PriorityClass, lane: str = "0") -> str:
    return f"{encode_token(model)}-{priority}-{lane}"


def parse_consumer(name: str) -> RequestName:
    """Take a consumer's name apart. Raises ValueError."""
    match name.rsplit("-", 2):
        case [model, priority, lane]:
            return RequestName(decode_token(model), PriorityClass(priority), lane)
    raise ValueError(f"not a request consumer: {name!r}")


def journal(edge: str, request_id: str) -> JournalSubjects:
    """Journal subjects of a request. Raises ValueError on an id that is not valid."""
    for name in (edge, request_id):
        if not is_valid_id(name):
            raise ValueError(f"not a valid id: {name!r}")
    base = f"inferflux.tok.{edge}.{request_id}"
    return JournalSubjects(f"{base}.head", f"{base}.run", f"{base}.ev", f"{base}.*")


def edge_journals(edge: str) -> str:
    """All journals that belong to one edge."""
    if not is_valid_id(edge):
        raise ValueError(f"not a valid id: {edge!r}")
    return f"inferflux.tok.{edge}.>"


def parse_journal(subject: str) -> JournalName:
    """Take a journal subject apart. Raises ValueError."""
    match subject.split("."):
        case ["inferflux", "tok", edge, request_id, kind] if kind in _KINDS:
            return JournalName(edge, request_id, kind)
    raise ValueError(f"not a journal subject: {subject!r}")


def live_subject(edge: str, request_id: str) -> str:
    """Where an edge hears the tokens of a request; `request_id` "*" for all. Raises ValueError on invalid ids."""
    for name in (edge, *([] if request_id == "*" else [request_id])):
        if not is_valid_id(name):
            raise ValueError(f"not a valid id: {name!r}")
    return f"inferflux.live.{edge}.{request_id}"


def heard_inbox() -> str:
    """A fresh prefix for answers to `live_subject`: an edge may not write into an inbox of a worker's role."""
    return f"inferflux.heard.{secrets.token_hex(8)}"


def is_heard(subject: str) -> bool:
    """Whether `subject` is under a `heard_inbox` and nothing else."""
    return _HEARD.fullmatch(subject) is not None


def cancel_subject(request_id: str) -> str:
    return f"inferflux.ctl.cancel.{request_id}"


def worker_control_subject(worker_id: str) -> str:
    return f"inferflux.ctl.worker.{worker_id}"


def edge_waiting_subject(edge_id: str) -> str:
    """Where an edge says what it has waiting in the queue. Raises ValueError on an id that is not valid."""
    if not is_valid_id(edge_id):
        raise ValueError(f"not a valid id: {edge_id!r}")
    return f"inferflux.ctl.edge.waiting.{edge_id}"


def edge_refused_subject(edge_id: str) -> str:
    """Where an edge says whom it refused for want of a worker. Raises ValueError on an id that is not valid."""
    if not is_valid_id(edge_id):
        raise ValueError(f"not a valid id: {edge_id!r}")
    return f"inferflux.ctl.edge.refused.{edge_id}"


def event_subject(request_id: str, event: str) -> str:
    return f"inferflux.evt.{request_id}.{event}"


def dlq_subject(model: str, request_id: str) -> str:
    return f"inferflux.dlq.{encode_token(model)}.{request_id}"


def any_dlq_subject(request_id: str) -> str:
    """The dead letter of a request of whichever model. Raises ValueError on an id that is not valid."""
    if not is_valid_id(request_id):
        raise ValueError(f"not a valid id: {request_id!r}")
    return f"inferflux.dlq.*.{request_id}"


def parse_dlq(subject: str) -> DeadLetterName:
    """Take the subject of a dead letter apart. Raises ValueError."""
    match subject.split("."):
        case ["inferflux", "dlq", model, request_id]:
            return DeadLetterName(decode_token(model), request_id)
    raise ValueError(f"not a dead letter: {subject!r}")


def audit_subject(writer: str) -> str:
    """Where an edge records who did what. Raises ValueError on an id that is not valid."""
    if not is_valid_id(writer):
        raise ValueError(f"not a valid id: {writer!r}")
    return f"inferflux.audit.{writer}"


def minute_counter(who: str, name: str, kind: str, number: int) -> str:
    """A counter that is soon forgotten: `kind` of use by a key, a tenant or a model, in part `number` of time."""
    return f"inferflux.limit.minute.{who}.{encode_token(name)}.{kind}.{number}"


def day_counter(who: str, name: str, kind: str, day: int) -> str:
    """The same over a day, counted from 1970-01-01 UTC."""
    return f"inferflux.limit.day.{who}.{encode_token(name)}.{kind}.{day}"


def clock_counter(edge_id: str) -> str:
    """A counter that stays 0: by what the broker writes beside it an edge reads the broker's clock."""
    if not is_valid_id(edge_id):
        raise ValueError(f"not a valid id: {edge_id!r}")
    return f"inferflux.limit.minute.clock.{edge_id}"


def tenant_batches(tenant: str) -> str:
    """All that one tenant may publish as batches."""
    return f"inferflux.batch.{encode_token(tenant)}.*"


def tenant_results(tenant: str) -> str:
    """The answers to the batches of one tenant."""
    return f"inferflux.result.{encode_token(tenant)}.>"


def batch_subject(tenant: str, model: str) -> str:
    """Where a tenant publishes lines for a model. Raises ValueError on empty names."""
    return f"inferflux.batch.{encode_token(tenant)}.{encode_token(model)}"


def batch_lane(lane: int) -> str:
    """All lines of a lane, as they are stored."""
    return f"inferflux.batch.{lane}.*.*"


def batch_consumer(lane: int) -> str:
    """What all edges take the lines of a lane from."""
    return f"lane-{lane}"


def parse_batch_lane(subject: str) -> int:
    """The lane of a stored line, whatever else its publisher made of the subject."""
    return int(subject.split(".")[2])


def parse_batch(subject: str) -> BatchName:
    """Take the subject of a stored line apart. Raises ValueError."""
    match subject.split("."):
        case ["inferflux", "batch", lane, tenant, model] if lane.isdecimal():
            return BatchName(int(lane), decode_token(tenant), decode_token(model))
    raise ValueError(f"not a batch subject: {subject!r}")


def result_subject(tenant: str, job: str, index: int | str, end: ResultEnd | Literal["*"]) -> str:
    """Where the answer to one line stands; `index` and `end` "*" for any. Raises ValueError on an invalid job id."""
    if not is_valid_id(job):
        raise ValueError(f"not a valid id: {job!r}")
    return f"inferflux.result.{encode_token(tenant)}.{job}.{index}.{end}"


def blob_subject(blob_id: str, index: int | str) -> str:
    """Subject of a chunk; `index` "*" for all of them."""
    return f"inferflux.blob.{blob_id}.{index}"


def file_subject(tenant: str, file_id: str, part: int | str) -> str:
    """Of a file's "head" or a chunk; `part` "*" for all of it, `file_id` "*" for any. Raises ValueError on a bad id."""
    if file_id != "*" and not is_valid_id(file_id):
        raise ValueError(f"not a valid id: {file_id!r}")
    return f"inferflux.file.{encode_token(tenant)}.{file_id}.{part}"


def job_subject(tenant: str | None, job: str) -> str:
    """Of the record of a batch job; `job` "*" for all, `tenant` None for any. Raises ValueError on a bad id."""
    if job != "*" and not is_valid_id(job):
        raise ValueError(f"not a valid id: {job!r}")
    return f"$KV.{BUCKET_BATCHES}.{encode_token(tenant) if tenant is not None else '*'}.{job}"


def bucket_stream(bucket: str) -> str:
    return f"KV_{bucket}"


def bucket_subject(bucket: str, key: str) -> str:
    """Subject of a key in a bucket; `key` ">" for all, else it is encoded."""
    return f"$KV.{bucket}.{key if key == '>' else encode_token(key)}"


class Delivery(NamedTuple):
    """What the reply subject of a delivered message tells. `stored_ns`: Unix time by the broker's clock."""

    stream: str
    num_delivered: int
    stream_seq: int
    consumer_seq: int
    stored_ns: int


def parse_delivery(ack_subject: str) -> Delivery:
    """Take an ack subject apart, with or without a JetStream domain. Raises ValueError."""
    tokens = ack_subject.split(".")
    if tokens[:2] != ["$JS", "ACK"] or len(tokens) < 9:
        raise ValueError(f"not an ack subject: {ack_subject!r}")
    # Nine tokens; with a domain and an account hash, and perhaps a random token at the end, eleven or twelve.
    first = 2 if len(tokens) == 9 else 4
    stream, _, delivered, stream_seq, consumer_seq, stored_ns = tokens[first : first + 6]
    return Delivery(stream, int(delivered), int(stream_seq), int(consumer_seq), int(stored_ns))


def delivery_subject(model: str, priority: PriorityClass, stream_seq: int, consumer_seq: int) -> str:
    """An ack subject for whatever delivery of that request is open now.

    The server finds it by the stream sequence alone; the consumer's has to be one that it has reached and that is not
    below every open delivery. The other fields are not looked at.
    """
    return f"$JS.ACK.{STREAM_REQUESTS}.{consumer_name(model, priority)}.1.{stream_seq}.{consumer_seq}.0.0"


def is_request_ack(subject: str) -> bool:
    """Whether `subject` is the ack subject of a delivery of INFERFLUX_REQUESTS and nothing else."""
    if _ACK.fullmatch(subject) is None:
        return False
    try:
        return parse_delivery(subject).stream == STREAM_REQUESTS
    except ValueError:
        return False
