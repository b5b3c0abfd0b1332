"""The calls of this edge, from acceptance until nobody asks for them any more, built together."""

import time
from typing import NamedTuple

from broker.connection import Connection
from broker.journal import JournalHub
from broker.transitions import Transitions
from broker.work_queue import WorkQueue
from producer.audit.audit import Audit
from producer.config import EdgeConfig
from producer.edge.background import Background
from producer.edge.calls import LiveCalls
from producer.edge.kept import KeptAnswers
from producer.edge.lifecycle import Lifecycle
from producer.edge.models import Models
from producer.edge.rates import ServiceRates
from producer.edge.retention import Retention
from producer.edge.retry_after import RetryAfter
from producer.edge.waiting import Waiting
from producer.metrics import EdgeMetrics


class Keeping(NamedTuple):
    calls: LiveCalls
    waiting: Waiting
    rates: ServiceRates
    retry_after: RetryAfter
    retention: Retention
    lifecycle: Lifecycle


def build_keeping(
    config: EdgeConfig,
    connection: Connection,
    hub: JournalHub,
    queue: WorkQueue,
    models: Models,
    metrics: EdgeMetrics,
    background: Background,
    audit: Audit,
) -> Keeping:
    calls, waiting = LiveCalls(config.max_concurrent), Waiting(config.edge_id)
    rates = ServiceRates(models.num_slots, lambda model: calls.ages(model, time.monotonic()))
    retention = Retention(hub, config.resume_window_s)
    transitions = Transitions(connection, config.edge_id)
    kept = KeptAnswers(calls, config.resume_window_s, config.kept_answers_bytes)
    return Keeping(
        calls=calls,
        waiting=waiting,
        rates=rates,
        retry_after=RetryAfter(rates, waiting.num_edges),
        retention=retention,
        lifecycle=Lifecycle(hub, queue, transitions, calls, kept, retention, rates, metrics, background, audit),
    )
