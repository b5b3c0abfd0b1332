"""The worker process: load, announce, pull, drain. Nothing here knows a backend or a token."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable
from importlib.metadata import version

from broker.connection import BrokerConfig, Connection
from broker.registry import Presence
from broker.transitions import Transitions
from broker.worker_control import serve_control, subscribe_cancels
from schemas.control import WorkerAdvert
from schemas.tracing import NO_TRACER, Tracer
from workers.config import WorkerConfig, WorkerModel, WorkerReady
from workers.intake import Intake
from workers.metrics import MetricsServer, WorkerMetrics
from workers.orders import Orders
from workers.probation import Probation
from workers.reconciler import Reconciler
from workers.runners.base import RunnerError

log = logging.getLogger("inferflux.worker")

WATCH_EVERY_S = 0.5


class WorkerFailed(Exception):
    """The worker cannot serve any longer; the text says why. It has given its work back as far as it could."""


async def run_worker(
    config: WorkerConfig,
    broker: BrokerConfig,
    *,
    on_ready: Callable[[WorkerReady], None],
    tracer: Tracer = NO_TRACER,
) -> None:
    """Serve until SIGTERM or SIGINT, then hand unfinished work back and return. A second signal ends the process.
    SIGUSR1: finish what was taken, then return.

    `on_ready` is called once, when every model that loads is announced. Raises BrokerError and RunnerError from
    starting, WorkerFailed when a device or backend breaks later.
    """
    connection = await Connection.open(broker)
    try:
        await _Worker(config, connection, tracer).run(on_ready)
    finally:
        await connection.close()


class _Worker:
    def __init__(self, config: WorkerConfig, connection: Connection, tracer: Tracer) -> None:
        self._config = config
        self._connection = connection
        self._tracer = tracer
        self._metrics = WorkerMetrics()
        tracer.report_to(self._metrics.count_spans)
        self._version = version("inferflux")  # looked up on the disk: milliseconds
        self._transitions = Transitions(connection, config.worker_id)
        self._probation = Probation()
        self._reconciler = Reconciler(connection, config, self._metrics, self._make_intake, self._changed)
        self._leave = asyncio.Event()
        self._finish = asyncio.Event()
        self._is_draining = False
        self._presence = Presence(connection, self._advert)
        self._orders = Orders(
            self._reconciler.intakes,
            is_supervised=config.is_supervised,
            leave=self._leave.set,
            announce=self._presence.announce,
        )

    async def run(self, on_ready: Callable[[WorkerReady], None]) -> None:
        self._catch_signals()
        metrics_server = MetricsServer(self._metrics.registry, self._config.metrics_host, self._config.metrics_port)
        trouble = None
        try:
            await self._announce()
            await self._reconciler.start()
            self._require_something()
            on_ready(WorkerReady(metrics_server.url, self._reconciler.served, self._reconciler.failed))
            log.info("serving", extra={"worker": self._config.worker_id, "models": self._model_ids()})
            trouble = await self._watch()
        finally:
            # The scrape port takes up to half a second to close.
            await asyncio.gather(self._drain(trouble), asyncio.to_thread(metrics_server.close))
        if trouble is not None:
            raise WorkerFailed(trouble)

    async def _announce(self) -> None:
        await serve_control(
            self._connection, self._config.worker_id, self._asked_to_drain, self._in_hand, self._orders.obey
        )
        await subscribe_cancels(self._connection, self._cancel)
        self._connection.on_reconnect(self._reconnected)
        await self._presence.start()

    def _require_something(self) -> None:
        """Raises RunnerError: nothing serves, and whoever started this expects that."""
        failed = self._reconciler.failed
        if self._config.must_serve and failed and not self._reconciler.served:
            raise RunnerError("; ".join(failed.values()))

    def _make_intake(self, model: WorkerModel) -> Intake:
        intake = Intake(
            self._connection, self._transitions, self._config, model, self._metrics, self._probation, self._tracer
        )
        self._orders.hold(intake)
        return intake

    def _model_ids(self) -> list[str]:
        return [served.id for served in self._reconciler.served]

    def _changed(self) -> None:
        self._presence.update()

    async def _watch(self) -> str | None:
        """Wait for the signal to leave, or for trouble with an engine."""
        finishing = asyncio.create_task(self._finish_and_leave(), name="finish")
        try:
            return await self._watch_engines()
        finally:
            finishing.cancel()
            await asyncio.gather(finishing, return_exceptions=True)

    async def _watch_engines(self) -> str | None:
        while not self._leave.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_EVERY_S):
                    await self._leave.wait()
            if self._connection.is_closed:
                return "the broker closed the connection for good"
            if (trouble := self._reconciler.trouble) is not None:
                log.error("out of service: %s", trouble, extra={"worker": self._config.worker_id})
                return trouble
            if self._orders.has_finished:
                return None
        return None

    async def _finish_and_leave(self) -> None:
        await self._finish.wait()
        log.info("finishing what was taken")
        await self._reconciler.finish()
        self._leave.set()

    async def _drain(self, trouble: str | None) -> None:
        self._is_draining = True
        await self._reconciler.stop()
        intakes = list(self._reconciler.intakes())
        await asyncio.gather(self._presence.withdraw(), *(intake.drain() for intake in intakes))
        for intake in intakes:
            await intake.close(join_engine=trouble is None)

    def _advert(self) -> WorkerAdvert:
        return WorkerAdvert(
            id=self._config.worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=self._version,
            models=self._reconciler.served,
            free_slots=self._reconciler.credit,
            draining=self._is_draining or self._orders.is_finishing,
            cordoned=self._orders.is_cordoned,
            loading=self._reconciler.loading,
            failed=self._reconciler.failed,
            failed_keys=self._reconciler.failed_keys,
            skipped=self._reconciler.skipped,
        )

    async def _asked_to_drain(self) -> None:
        self._leave.set()

    async def _in_hand(self) -> set[int]:
        return set().union(*[await intake.in_hand() for intake in self._reconciler.intakes()])

    def _cancel(self, request_id: str) -> None:
        for intake in self._reconciler.intakes():
            intake.cancel(request_id)

    async def _reconnected(self) -> None:
        await asyncio.gather(*(intake.save_all() for intake in self._reconciler.intakes()))

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        loop.add_signal_handler(signal.SIGUSR1, self._finish.set)

    def _signalled(self) -> None:
        if self._leave.is_set():
            os._exit(1)  # the second signal forces
        self._leave.set()
