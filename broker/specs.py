"""What streams, consumers and buckets there should be, as data. `topology` makes it so."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from broker.subjects import (
    AUDIT_ALL,
    BATCH_ALL,
    BATCH_LANES,
    BATCH_STORED_AS,
    BUCKET_BATCHES,
    BUCKET_MODELS,
    BUCKET_POLICY,
    BUCKET_WORKERS,
    FILES_ALL,
    LIMITS_ALL,
    LIMITS_DAILY_ALL,
    RESULTS_ALL,
    STREAM_AUDIT,
    STREAM_BATCH,
    STREAM_BLOBS,
    STREAM_DLQ,
    STREAM_FILES,
    STREAM_LIMITS,
    STREAM_LIMITS_DAILY,
    STREAM_REQUESTS,
    STREAM_RESULTS,
    STREAM_TOKENS,
    batch_consumer,
    batch_lane,
    bucket_stream,
    bucket_subject,
    consumer_name,
    request_subject,
)
from schemas.control import ModelCard
from schemas.requests import PriorityClass

_SECOND = 10**9
_MIB = 1 << 20
_GIB = 1 << 30

ACK_WAIT_S = 15
ACK_WAIT_CLUSTER_S = 20
JOURNAL_AGE_S = 3600
PRESENCE_TTL_S = 6
RESULTS_AGE_S = 7 * 86400
FILES_AGE_S = 7 * 86400
# A record goes before the first of its results, which may be a day younger: what is counted is complete.
JOBS_AGE_S = RESULTS_AGE_S - 86400
# A share of the smallest budget must still hold one message of the largest size.
MIN_BUDGET_BYTES = 512 * _MIB
MAX_BUDGET_BYTES = 64 * _GIB
DEFAULT_BUDGET_BYTES = 8 * _GIB


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream. `settings` are JetStream's own names and units (nanoseconds, bytes)."""

    name: str
    subjects: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    def config(self) -> dict[str, Any]:
        return {"name": self.name, "subjects": list(self.subjects), **self.settings}


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """A durable pull consumer, of one request subject unless `stream` is another."""

    name: str
    filter_subject: str
    settings: dict[str, Any] = field(default_factory=dict)
    stream: str = STREAM_REQUESTS

    def config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "durable_name": self.name,
            "filter_subject": self.filter_subject,
            **self.settings,
        }


@dataclass(frozen=True, slots=True)
class BucketSpec:
    """A key-value bucket. Keys older than `ttl_s` vanish, and watchers are told (0: never)."""

    name: str
    max_bytes: int
    history: int = 1
    ttl_s: int = 0

    def stream(self, replicas: int) -> StreamSpec:
        """The stream that is the bucket, as every NATS client knows it."""
        settings: dict[str, Any] = {
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "num_replicas": replicas,
            "max_bytes": self.max_bytes,
            "max_msgs_per_subject": self.history,
            "max_age": self.ttl_s * _SECOND,
            "duplicate_window": (min(self.ttl_s, 120) or 120) * _SECOND,
            "allow_rollup_hdrs": True,
            "allow_direct": True,
            "allow_msg_ttl": True,
            "deny_delete": True,
        }
        if self.ttl_s:
            settings["subject_delete_marker_ttl"] = 10 * _SECOND
        return StreamSpec(bucket_stream(self.name), (bucket_subject(self.name, ">"),), settings)


def disk_budget(account_limit: int, max_file_bytes: int | None = None) -> int:
    """Bytes to share among the streams: the power of two below the smaller limit, so that it seldom changes.

    Without one (the account's is -1 or 0) a modest default.
    """
    limits = [limit for limit in (account_limit, max_file_bytes) if limit is not None and limit > 0]
    if not limits:
        return DEFAULT_BUDGET_BYTES
    return min(MAX_BUDGET_BYTES, max(MIN_BUDGET_BYTES, 1 << (min(limits).bit_length() - 1)))


def stream_specs(*, replicas: int, request_cap: int, budget: int) -> list[StreamSpec]:
    """All streams. `request_cap` is the most messages of one request subject, running ones included."""
    common = {"storage": "file", "num_replicas": replicas}
    requests = {
        **common,
        "retention": "workqueue",
        "discard": "new",
        "discard_new_per_subject": True,
        "max_msgs_per_subject": request_cap,
        "max_bytes": budget // 8,
        "duplicate_window": 120 * _SECOND,
    }
    # Direct get: journals are read back in one batch. No cap per subject: it would cut a journal's head or end.
    tokens = {
        **common,
        "retention": "limits",
        "discard": "old",
        "max_age": JOURNAL_AGE_S * _SECOND,
        "max_bytes": budget // 2,
        "allow_direct": True,
    }
    blobs = {
        **common,
        "retention": "limits",
        "discard": "new",
        "max_msgs_per_subject": 1,  # a body put again replaces itself
        "max_age": JOURNAL_AGE_S * _SECOND,
        "max_bytes": budget // 8,
        "allow_direct": True,
    }
    dlq = {**common, "retention": "limits", "discard": "old", "max_age": 7 * 86400 * _SECOND, "max_bytes": budget // 16}
    # Never dropped by age: a chain with a hole proves nothing. When it is full, administration stops.
    audit = {**common, "retention": "limits", "discard": "new", "max_bytes": budget // 32, "allow_direct": True}
    # A lane for each tenant and model, so that one with many lines does not stand before the others.
    batch = {
        **common,
        "retention": "workqueue",
        "discard": "new",
        "max_bytes": budget // 64,
        "duplicate_window": 120 * _SECOND,
        "subject_transform": {"src": BATCH_ALL, "dest": BATCH_STORED_AS},
    }
    # Full: no more lines are taken. What is there may not have been fetched yet.
    results = {
        **common,
        "retention": "limits",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "max_age": RESULTS_AGE_S * _SECOND,
        "max_bytes": budget // 64,
        "duplicate_window": 120 * _SECOND,
        "allow_direct": True,
    }
    # Full: no more files are taken. Those that are there may be what batches are made of.
    files = {
        **common,
        "retention": "limits",
        "discard": "new",
        "max_msgs_per_subject": 1,
        "max_age": FILES_AGE_S * _SECOND,
        "max_bytes": budget // 32,
        "allow_direct": True,
    }
    return [
        StreamSpec(STREAM_REQUESTS, ("inferflux.req.>",), requests),
        StreamSpec(STREAM_TOKENS, ("inferflux.tok.>",), tokens),
        StreamSpec(STREAM_BLOBS, ("inferflux.blob.>",), blobs),
        StreamSpec(STREAM_DLQ, ("inferflux.dlq.>",), dlq),
        StreamSpec(STREAM_AUDIT, (AUDIT_ALL,), audit),
        StreamSpec(STREAM_BATCH, (BATCH_ALL,), batch),
        StreamSpec(STREAM_RESULTS, (RESULTS_ALL,), results),
        StreamSpec(STREAM_FILES, (FILES_ALL,), files),
        StreamSpec(STREAM_LIMITS, (LIMITS_ALL,), _counters(replicas, "memory", 180, 64 * _MIB)),
        StreamSpec(STREAM_LIMITS_DAILY, (LIMITS_DAILY_ALL,), _counters(replicas, "file", 2 * 86400, budget // 64)),
        *(bucket.stream(replicas) for bucket in bucket_specs(budget)),
    ]


def _counters(replicas: int, storage: str, age_s: int, max_bytes: int) -> dict[str, Any]:
    """Settings of a stream of distributed counters (ADR-49): one message per subject, its body the total."""
    return {
        "storage": storage,
        "num_replicas": replicas,
        "retention": "limits",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "max_age": age_s * _SECOND,
        "max_bytes": max_bytes,
        "allow_direct": True,
        "allow_msg_counter": True,
    }


def bucket_specs(budget: int) -> list[BucketSpec]:
    return [
        BucketSpec(BUCKET_MODELS, max_bytes=budget // 64, history=10),
        BucketSpec(BUCKET_POLICY, max_bytes=budget // 64, history=64),
        BucketSpec(BUCKET_WORKERS, max_bytes=budget // 64, ttl_s=PRESENCE_TTL_S),
        BucketSpec(BUCKET_BATCHES, max_bytes=budget // 64, ttl_s=JOBS_AGE_S),
    ]


def consumer_specs(models: Iterable[ModelCard], *, replicas: int, lanes: int) -> list[ConsumerSpec]:
    """A consumer per model, class and lane.

    The defaults of the unlimited settings bite: 1000 running requests per class, 512 pulls over the fleet. A limit on
    deliveries would strand healthy requests.
    """
    settings = _consumer_settings(replicas)
    return [
        ConsumerSpec(
            consumer_name(model.id, priority, str(lane)), request_subject(model.id, priority, str(lane)), settings
        )
        for model in models
        for priority in PriorityClass
        for lane in range(lanes)
    ]


def batch_consumers(*, replicas: int) -> list[ConsumerSpec]:
    """A consumer per lane of the queue of lines, shared by all edges."""
    settings = _consumer_settings(replicas)
    return [ConsumerSpec(batch_consumer(lane), batch_lane(lane), settings, STREAM_BATCH) for lane in range(BATCH_LANES)]


def _consumer_settings(replicas: int) -> dict[str, Any]:
    return {
        "ack_policy": "explicit",
        "deliver_policy": "all",
        "ack_wait": (ACK_WAIT_S if replicas == 1 else ACK_WAIT_CLUSTER_S) * _SECOND,
        "max_deliver": -1,
        "max_ack_pending": -1,
        "max_waiting": 4096,
    }


def request_cap(models: Sequence[ModelCard], fleet_slots: int) -> int:
    """The cap of one request subject: waiting and running ones of the model with the longest queue."""
    return max((model.queue_max for model in models), default=0) + max(fleet_slots, 1)
