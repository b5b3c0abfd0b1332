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
from schemas.control import ServedModel, WorkerAdvert
from workers.config import WorkerConfig, WorkerModel, WorkerReady
from workers.intake import Intake
from workers.metrics import MetricsServer, WorkerMetrics
from workers.orders import Orders
from workers.probation import Probation
from workers.registration import Registration
from workers.runners.base import RunnerError

log = logging.getLogger("inferflux.worker")

WATCH_EVERY_S = 0.5


class WorkerFailed(Exception):
    """The worker cannot serve any longer; the text says why. It has given its work back as far as it could."""


async def run_worker(config: WorkerConfig, broker: BrokerConfig, *, on_ready: Callable[[WorkerReady], None]) -> None:
    """Serve until SIGTERM or SIGINT, then hand unfinished work back and return. A second signal ends the process.

    `on_ready` is called once, when every model that loads is announced. Raises BrokerError and RunnerError from
    starting, WorkerFailed when a device or backend breaks later.
    """
    connection = await Connection.open(broker)
    try:
        await _Worker(config, connection).run(on_ready)
    finally:
        await connection.close()


class _Worker:
    def __init__(self, config: WorkerConfig, connection: Connection) -> None:
        self._config = config
        self._connection = connection
        self._metrics = WorkerMetrics()
        self._transitions = Transitions(connection, config.worker_id)
        self._probation = Probation()
        self._intakes: list[Intake] = []
        self._served: tuple[ServedModel, ...] = ()
        self._leave = asyncio.Event()
        self._is_draining = False
        self._presence = Presence(connection, self._advert)
        self._orders = Orders(
            self._intakes,
            is_supervised=config.is_supervised,
            leave=self._leave.set,
            announce=self._presence.announce,
        )
        self._registration: Registration | None = None

    async def run(self, on_ready: Callable[[WorkerReady], None]) -> None:
        self._catch_signals()
        metrics_server = MetricsServer(self._metrics.registry, self._config.metrics_host, self._config.metrics_port)
        trouble = None
        try:
            await self._load()
            await self._announce()
            on_ready(WorkerReady(metrics_server.url, self._served))
            trouble = await self._watch()
        finally:
            # The scrape port takes up to half a second to close.
            await asyncio.gather(self._drain(trouble), asyncio.to_thread(metrics_server.close))
        if trouble is not None:
            raise WorkerFailed(trouble)

    async def _load(self) -> None:
        """Load the models one after another. One that does not load is left out; raises RunnerError when none does."""
        failures: dict[str, RunnerError] = {}
        for model in self._config.models:
            try:
                await self._load_one(model)
            except RunnerError as error:
                failures[model.spec.model_id] = error
        if failures and not self._intakes:
            raise RunnerError("; ".join(map(str, failures.values())))
        for model_id, reason in failures.items():
            log.error("model %s is not served: %s", model_id, reason)

    async def _load_one(self, model: WorkerModel) -> None:
        intake = Intake(self._connection, self._transitions, self._config, model, self._metrics, self._probation)
        try:
            served = await intake.open()
        except RunnerError:
            await intake.close()
            raise
        self._intakes.append(intake)
        self._served += (served,)

    async def _announce(self) -> None:
        await serve_control(
            self._connection, self._config.worker_id, self._asked_to_drain, self._in_hand, self._orders.obey
        )
        await subscribe_cancels(self._connection, self._cancel)
        self._connection.on_reconnect(self._reconnected)
        for intake in self._intakes:
            await intake.pull()
        await self._presence.start()
        self._registration = Registration(
            self._connection, [intake.model_id for intake in self._intakes], self._registered
        )
        self._registration.start()
        log.info("serving", extra={"worker": self._config.worker_id, "models": [served.id for served in self._served]})

    async def _watch(self) -> str | None:
        """Wait for the signal to leave, or for trouble with an engine."""
        while not self._leave.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_EVERY_S):
                    await self._leave.wait()
            if self._connection.is_closed:
                return "the broker closed the connection for good"
            for intake in self._intakes:
                if (trouble := intake.trouble) is not None:
                    log.error("out of service: %s", trouble, extra={"worker": self._config.worker_id})
                    return trouble
            if self._orders.has_finished:
                return None
        return None

    async def _drain(self, trouble: str | None) -> None:
        self._is_draining = True
        await asyncio.gather(self._presence.withdraw(), *(intake.drain() for intake in self._intakes))
        if self._registration is not None:
            await self._registration.close()
        for intake in self._intakes:
            await intake.close(join_engine=trouble is None)

    def _advert(self) -> WorkerAdvert:
        return WorkerAdvert(
            id=self._config.worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=version("inferflux"),
            models=self._served,
            free_slots=sum(intake.credit for intake in self._intakes),
            draining=self._is_draining or self._orders.is_finishing,
            cordoned=self._orders.is_cordoned,
        )

    async def _asked_to_drain(self) -> None:
        self._leave.set()

    async def _in_hand(self) -> set[int]:
        return set().union(*[await intake.in_hand() for intake in self._intakes])

    def _cancel(self, request_id: str) -> None:
        for intake in self._intakes:
            intake.cancel(request_id)

    def _registered(self, model_id: str) -> None:
        for intake in self._intakes:
            if intake.model_id == model_id:
                intake.retry()

    async def _reconnected(self) -> None:
        await asyncio.gather(*(intake.save_all() for intake in self._intakes))

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)

    def _signalled(self) -> None:
        if self._leave.is_set():
            os._exit(1)  # the second signal forces
        self._leave.set()
