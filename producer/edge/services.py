"""Everything a handler needs, built once and passed in."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from broker.connection import BrokerConfig, Connection
from broker.edge_refused import Refused, announce_refused, listen_for_refused
from broker.edge_waiting import WaitingTokens, announce_waiting, listen_for_waiting
from broker.holders import Holders
from broker.journal import JournalHub
from broker.registry import Registry
from broker.work_queue import WorkQueue
from broker.worker_control import WorkerControl
from producer.audit.audit import Audit
from producer.auth.api_keys import ApiKeys
from producer.auth.authenticator import Authenticator
from producer.auth.oidc.verifier import OidcVerifier
from producer.config import EdgeConfig
from producer.edge.admission import Stage
from producer.edge.arrivals import Arrivals
from producer.edge.background import Background
from producer.edge.batch.doors import Doors, build_doors
from producer.edge.batch.hooks import BatchHooks
from producer.edge.calls import Call, LiveCalls
from producer.edge.demand import Demand
from producer.edge.drain import Drain
from producer.edge.finding import Finding
from producer.edge.fleet import Fleet
from producer.edge.guardian import Guardian, WorkerProbe
from producer.edge.ids import mint_seed
from producer.edge.in_flight import InFlightRequests
from producer.edge.joining import Joining
from producer.edge.keeping import Keeping, build_keeping
from producer.edge.key_watch import KeyWatch
from producer.edge.lifecycle import Lifecycle
from producer.edge.manifest import ManifestStanding
from producer.edge.model_changes import ModelChanges
from producer.edge.models import Models
from producer.edge.output_filter import FilterFactory
from producer.edge.position import Position, position_of
from producer.edge.queue_view import QueueView
from producer.edge.rates import ServiceRates
from producer.edge.resuming import Resuming
from producer.edge.retention import Retention
from producer.edge.scaling import Scaling
from producer.edge.stages.identity import check_priority, check_scope
from producer.edge.stages.limits import WithinLimits
from producer.edge.stages.model import KnownModel, LiveWorker, check_template
from producer.edge.stages.queue import QueueRoom
from producer.edge.stages.size import estimate_size
from producer.edge.strays import Strays
from producer.edge.submitter import Submitter
from producer.edge.translate import Limits
from producer.edge.trust import build_trust
from producer.edge.waiting import Waiting
from producer.guardrails.guardrails import Guardrails
from producer.limits.limiter import Limiter
from producer.metrics import EdgeMetrics
from producer.policy.callers import require_callers
from producer.policy.live import LivePolicy
from producer.policy.lockout import Lockout
from producer.policy.store import PolicyStore
from schemas.tracing import NO_TRACER, Tracer

_CLOSE_S = 5.0


@dataclass(frozen=True, slots=True)
class Services:
    config: EdgeConfig
    connection: Connection
    hub: JournalHub
    queue: WorkQueue
    registry: Registry
    models: Models
    fleet: Fleet
    in_flight: InFlightRequests
    model_changes: ModelChanges
    manifest: ManifestStanding
    policy: LivePolicy
    policy_store: PolicyStore
    lockout: Lockout
    keys: ApiKeys
    key_watch: KeyWatch
    authenticator: Authenticator
    audit: Audit
    oidc: OidcVerifier
    metrics: EdgeMetrics
    drain: Drain
    calls: LiveCalls
    arrivals: Arrivals
    waiting: Waiting
    lifecycle: Lifecycle
    submitter: Submitter
    joining: Joining
    resuming: Resuming
    guardian: Guardian
    retention: Retention
    background: Background
    rates: ServiceRates
    demand: Demand
    scaling: Scaling
    guardrails: Guardrails
    limits: Limits
    stages: Sequence[Stage]
    limiter: Limiter
    doors: Doors
    filters: Sequence[FilterFactory] = ()
    tracer: Tracer = NO_TRACER
    batch: BatchHooks = field(default_factory=BatchHooks)

    @property
    def is_reachable(self) -> bool:
        """Whether requests can be taken: broker connected and journals followed."""
        return self.connection.is_connected and self.hub.is_live

    async def position_of(self, call: Call) -> Position:
        return await position_of(call, self.queue.look)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The tasks that watch over calls, journals and the queue."""

        async def announce(tokens: WaitingTokens) -> None:
            await announce_waiting(self.connection, self.config.edge_id, tokens)

        async def announce_unserved(refused: Refused) -> None:
            await announce_refused(self.connection, self.config.edge_id, refused)

        self.oidc.start()
        async with self.audit.running():
            listening = await listen_for_waiting(self.connection, self.waiting.heard)
            unserved = await listen_for_refused(self.connection, self.demand.heard)
            tasks = [
                asyncio.create_task(self.waiting.run(announce), name="waiting"),
                asyncio.create_task(self.guardian.run(), name="guardian"),
                asyncio.create_task(self.retention.run(), name="retention"),
                asyncio.create_task(self.limiter.run(), name="limits"),
                asyncio.create_task(self.scaling.run(announce_unserved), name="autoscaling hints"),
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await listening.close()
                await unserved.close()
                self.key_watch.close()
                await self.oidc.close()
                await self.background.close(_CLOSE_S)
                await self.retention.close(_CLOSE_S)


@asynccontextmanager
async def open_services(
    config: EdgeConfig,
    broker_config: BrokerConfig,
    *,
    extra_stages: Sequence[Stage] = (),
    filters: Sequence[FilterFactory] = (),
    tracer: Tracer = NO_TRACER,
) -> AsyncIterator[Services]:
    """Connect to the broker and build the rest. Raises BrokerUnavailable, BrokerUnsuitable, PolicyError.

    `extra_stages` run after the model is known and before the queue is looked at.
    """
    async with contextlib.AsyncExitStack() as stack:
        connection = await Connection.open(broker_config)
        stack.push_async_callback(connection.drain)
        registry = Registry(connection, answers=WorkerControl(connection).answers)
        await registry.start()
        stack.push_async_callback(registry.close)
        hub = JournalHub(connection, config.edge_id)
        await hub.start()
        stack.push_async_callback(hub.close)
        services = _build(config, connection, registry, hub, extra_stages, filters, tracer)
        stack.push_async_callback(services.policy_store.close)
        stack.push_async_callback(services.guardrails.close)
        await services.policy_store.start()
        require_callers(services.policy.config, services.policy_store.document)
        yield services


def _build(
    config: EdgeConfig,
    connection: Connection,
    registry: Registry,
    hub: JournalHub,
    extra_stages: Sequence[Stage],
    filters: Sequence[FilterFactory],
    tracer: Tracer,
) -> Services:
    models = Models(registry)
    models.note_default()
    registry.on_change(models.note_default)
    queue = WorkQueue(connection)
    metrics, background, demand = EdgeMetrics(CollectorRegistry()), Background(), Demand(config.edge_id)
    tracer.report_to(metrics.count_spans)
    trust = build_trust(config, connection, metrics, background)
    trust.policy.on_change(models.learn)
    keeping = build_keeping(config, connection, hub, queue, models, metrics, background, trust.audit)
    calls, lifecycle = keeping.calls, keeping.lifecycle
    key_watch = KeyWatch(trust.keys, calls, lifecycle)
    trust.policy.on_change(lambda _: key_watch.look())
    finding = Finding(connection, calls)
    joining = Joining(connection, config.edge_id, finding, lifecycle, config.resume_window_s)
    limiter = Limiter(
        connection,
        config.edge_id,
        trust.keys.owner_of,
        background,
        keeping.rates.service_s,
        metrics.rate_limited.inc,
        window_s=config.limit_window_s,
    )
    trust.policy.on_change(limiter.learn)
    retry_after, waiting = keeping.retry_after, keeping.waiting
    doors = build_doors(connection, models)
    return Services(
        config=config,
        connection=connection,
        hub=hub,
        queue=queue,
        registry=registry,
        models=models,
        fleet=Fleet(registry, WorkerControl(connection), lambda: connection.max_payload),
        in_flight=InFlightRequests(connection, joining),
        model_changes=ModelChanges(registry, models, trust.audit),
        manifest=ManifestStanding(metrics),
        policy=trust.policy,
        policy_store=trust.policy_store,
        lockout=trust.lockout,
        keys=trust.keys,
        key_watch=key_watch,
        audit=trust.audit,
        authenticator=trust.authenticator,
        oidc=trust.oidc,
        metrics=metrics,
        drain=Drain(),
        calls=calls,
        arrivals=Arrivals(
            calls, config.max_concurrent, max(config.body_buffer_bytes, config.max_body_bytes), retry_after
        ),
        waiting=waiting,
        lifecycle=lifecycle,
        submitter=Submitter(
            config.edge_id, hub, queue, calls, lifecycle, joining.is_first, retry_after, background, tracer
        ),
        joining=joining,
        resuming=Resuming(finding, lifecycle, config.resume_window_s),
        guardian=_guardian(connection, registry, hub, queue, keeping, background),
        retention=keeping.retention,
        background=background,
        rates=keeping.rates,
        demand=demand,
        scaling=Scaling(config.autoscale, models, queue, waiting, demand, metrics),
        guardrails=trust.guardrails,
        limits=Limits(config.max_prompts, config.longest_timeout_s, config.high_priority_threshold, mint_seed),
        stages=(
            check_scope,
            KnownModel(models),
            check_priority,
            check_template,
            estimate_size,
            trust.guardrails,
            *extra_stages,
            LiveWorker(demand, models),
            WithinLimits(limiter),
            QueueRoom(QueueView(queue.patient_look, waiting), waiting, retry_after),
        ),
        limiter=limiter,
        doors=doors,
        batch=doors.hooks,
        # The last one: it sees what the client would.
        filters=(*filters, trust.guardrails.make_filter),
        tracer=tracer,
    )


def _guardian(
    connection: Connection,
    registry: Registry,
    hub: JournalHub,
    queue: WorkQueue,
    keeping: Keeping,
    background: Background,
) -> Guardian:
    control = WorkerControl(connection)
    holders = Holders(registry, control)
    strays = Strays(queue.look, holders.unheld, queue.hand_back_unclaimed, lambda: hub.live_since, background)
    probe = WorkerProbe(control.is_alive)
    return Guardian(keeping.calls, keeping.lifecycle, probe, lambda: hub.is_live, queue.hand_back, strays, background)
