"""`inferflux up`, from lock to drain."""

import asyncio
import logging
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path
from urllib.parse import urlsplit

from broker.address import bare_url
from broker.connection import BrokerConfig
from broker.errors import BrokerError
from broker.roles import Role
from ops.errors import CannotStart
from ops.manifest.follower import Untold, following
from ops.reload.plain import PlainReloader
from ops.reload.sources import Again, SettingsSources
from ops.serving.broker import broker_tls
from ops.serving.calibrating import calibrate_cards
from ops.serving.keys import shown_key
from ops.serving.plan import PlannedModel, planner_of
from ops.serving.worker_models import model_settings
from ops.settings.settings import Settings
from ops.supervisor.broker_service import BrokerService
from ops.supervisor.fleet import Fleet
from ops.supervisor.launches import LaunchContext, clear_ready_files, edge_launcher, worker_launcher
from ops.supervisor.leftovers import wait_for_leftovers
from ops.supervisor.lock import DataDirLock
from ops.supervisor.model_workers import Workers
from ops.supervisor.models_again import register_again
from ops.supervisor.output import Output
from ops.supervisor.ports import choose_nats_port, require_http_port
from ops.supervisor.readiness import wait_until_ready
from ops.supervisor.ready import ready_block
from ops.supervisor.run_file import Running, RunningProcess, RunningWorker, remove_run_file, write_run_file
from ops.supervisor.service import Launch, Service
from ops.supervisor.terminal import Terminal
from ops.supervisor.waits import all_of, first_of
from schemas.control import ModelCard

log = logging.getLogger("inferflux.up")

# Beyond the edge's own deadline: time for its last words, and to leave.
EDGE_LEAVES_S = 10.0
WORKER_DRAIN_S = 30.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXIT_FORCED = 1


class Up:
    """Everything that runs on this machine. Starts broker, topology, edge and workers; drains edge, workers, broker.

    `flags` are those of the command, passed on to the children. What a worker still held when it ended, however it did,
    goes to others at once. SIGHUP reads the configuration again, here and in the children.
    """

    def __init__(self, sources: SettingsSources, plan: Sequence[PlannedModel], flags: Mapping[str, str]) -> None:
        self._settings = settings = sources.settings
        self._reloader = PlainReloader(sources, self._reload)
        self._terminal = Terminal()
        self._configured = settings
        self._plan = plan
        self._flags = flags
        self._output = Output(sys.stderr, form=settings.logging.format)
        self._broker: BrokerService | None = None
        self._broker_url = settings.nats.url or ""
        self._fleet: Fleet | None = None
        self._edge: Service | None = None
        self._edge_port: int | None = None
        self._workers = Workers(settings.workers, self._make_worker, self._find_backend)
        self._context: LaunchContext | None = None
        self._following: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._stop_asked = asyncio.Event()
        self._force_asked = asyncio.Event()

    async def run(self) -> int:
        """Run until a signal; returns the exit code. Raises CannotStart, with nothing left running."""
        lock = DataDirLock(self._settings.data_dir)
        lock.acquire()
        try:
            self._catch_signals()
            if await first_of(self._start(), self._stop_asked):
                async with self._reloader.running():
                    await self._stop_asked.wait()
            log.info("draining: edge, workers, broker; a second signal forces")
            return 0 if await first_of(self._drain(), self._force_asked) else EXIT_FORCED
        except BrokerError as error:
            raise CannotStart(str(error)) from None
        finally:
            await self._kill_what_is_left()
            remove_run_file(self._settings.data_dir)
            lock.release()

    async def _start(self) -> None:
        settings = self._settings
        wait_for_leftovers(settings.data_dir)
        clear_ready_files(settings.data_dir)
        if not settings.no_edge:
            require_http_port(settings.server)
        credentials = await self._start_broker()
        self._write_running()
        self._fleet = await Fleet.open(
            BrokerConfig(self._broker_url, Role.TOPOLOGY, "inferflux-up", credentials, tls=broker_tls(settings.nats)),
            [model.card() for model in self._plan],
            settings.nats,
            is_ours_alone=self._broker is not None,
            is_stand_in=self._broker is None and _names_no_model(settings),
        )
        if not self._fleet.own:
            self._plan = ()
        self._context = LaunchContext(settings.data_dir, self._broker_url, credentials, self._flags)
        if settings.workers > 0:  # before anything runs that the figures would suffer from
            await self._calibrate(list(self._fleet.cards.values()))
        if not settings.no_edge:
            self._edge = self._service("edge", edge_launcher(self._context, self._last_port))
            self._edge.start()
        await self._workers.follow(self._fleet.cards, self._fleet.serves, self._fleet.skips)
        await all_of([*([self._edge.first_ready()] if self._edge is not None else []), self._workers.first_ready()])
        if self._edge is not None and self._serves_default_model():
            await wait_until_ready(self._probed_url())
        self._say_ready()
        self._following = asyncio.create_task(self._follow_models(self._fleet), name="models")
        self._following.add_done_callback(_tell_failure)

    async def _start_broker(self) -> Path | None:
        """Start the embedded server, unless NATS is elsewhere; returns where the logins are."""
        nats = self._settings.nats
        if nats.url is not None:
            return nats.credentials
        if not nats.embedded:
            raise CannotStart("nats.embedded is false and nats.url is not set: there is no broker")
        port = choose_nats_port(nats)
        self._broker = BrokerService(
            self._settings.data_dir, port, max_file_bytes=nats.max_file_bytes, on_restart=self._write_running
        )
        self._broker_url = await self._broker.start()
        return self._broker.server.credentials

    async def _calibrate(self, cards: Sequence[ModelCard]) -> None:
        """Raises CannotStart for a setting that no backend honours which was chosen."""
        stop = threading.Event()
        try:
            await asyncio.to_thread(calibrate_cards, cards, self._settings, stop)
        finally:
            stop.set()  # a thread cannot be cancelled

    def _make_worker(self, number: int, model_id: str) -> Service:
        assert self._context is not None
        launcher = worker_launcher(self._context, number, model_id, is_configured=self._is_as_configured(model_id))
        return self._service(f"worker-{number}", launcher)

    def _is_as_configured(self, model_id: str) -> bool:
        """Whether the model is ours, and nobody has had another word on it since: a worker of its own keeps to one
        backend, and an administrator may have chosen another.
        """
        card = self._fleet.cards.get(model_id) if self._fleet is not None else None
        own = next((model.card() for model in self._plan if model.settings.id == model_id), None)
        return card is not None and own is not None and card.origin == "config" and card.configured == own.configured

    def _find_backend(self, card: ModelCard) -> str | None:
        """On a thread. None where none is found, or the files are not here yet: the worker says why."""
        try:
            return planner_of(self._settings, may_download=False).plan(model_settings(card)).backend
        except CannotStart:
            return None

    async def _follow_models(self, fleet: Fleet) -> None:
        """From here on, whatever administrators, configuration and manifest change."""
        fleet.on_change(self._news.set)
        async with self._manifest_beside(fleet):
            while True:
                await self._workers.follow(fleet.cards, fleet.serves, fleet.skips)
                self._write_running()
                await self._news.wait()
                self._news.clear()

    def _manifest_beside(self, fleet: Fleet) -> AbstractAsyncContextManager[None]:
        """Edges follow the manifest; where we run none, we do."""
        if not self._settings.no_edge or self._settings.registry.path is None:
            return nullcontext()
        return following(self._settings.registry, fleet.registry, Untold())

    def _service(self, name: str, launcher: Callable[[], Launch]) -> Service:
        return Service(name, launcher, self._output, on_ready=self._note_ready, on_exit=self._note_exit)

    def _services(self) -> list[Service]:
        return [*([self._edge] if self._edge is not None else []), *self._workers]

    def _note_ready(self, service: Service) -> None:
        log.info("%s is ready", service.name, extra={"pid": service.pid})
        if service is self._edge and service.facts is not None:
            self._edge_port = urlsplit(service.facts["url"]).port
        self._write_running()

    def _note_exit(self, service: Service, code: int) -> None:
        if service in self._workers and service.launch is not None and self._fleet is not None:
            self._fleet.worker_ended(service.launch.id, service.launch.at)
        self._write_running()

    def _say_ready(self) -> None:
        block = ready_block(
            edge_url=self._edge_url(),
            key=shown_key(takes_default_key=self._takes_default_key()),
            broker_url=bare_url(self._broker_url),
            workers=self._workers.facts,
            unserved=self._workers.unserved,
        )
        print(block, flush=True)

    def _serves_default_model(self) -> bool:
        """Whether the edge will ever be ready: with no worker for its default model it cannot."""
        unserved = self._workers.unserved
        cards = self._fleet.cards.values() if self._fleet is not None else []
        defaults = [card.id for card in cards if card.default]
        return self._settings.workers > 0 and bool(defaults) and defaults[0] not in unserved

    def _takes_default_key(self) -> bool:
        return self._edge is not None and self._edge.facts is not None and bool(self._edge.facts["default_key"])

    def _edge_url(self) -> str | None:
        return self._edge.facts["url"] if self._edge is not None and self._edge.facts is not None else None

    def _probed_url(self) -> str:
        """Where readiness is asked for: over TLS the edge may want a certificate that this process has not got."""
        assert self._edge is not None and self._edge.facts is not None
        facts = self._edge.facts
        plain: str = facts["url"] if self._settings.server.tls is None else facts["metrics"].removesuffix("/metrics")
        return plain

    def _last_port(self) -> int | None:
        return self._edge_port

    def _write_running(self) -> None:
        broker_pid = self._broker.server.pid if self._broker is not None else None
        edge_url = self._edge_url()
        edge = RunningProcess(self._edge.pid, edge_url) if self._edge is not None and edge_url is not None else None
        workers = tuple(_running_worker(service) for service in self._workers if service.facts is not None)
        nats = RunningProcess(broker_pid, bare_url(self._broker_url))
        running = Running(nats, edge=edge, workers=workers)
        try:
            write_run_file(self._settings.data_dir, running)
        except OSError as error:
            log.error("run.json is out of date: %s", error.strerror)

    async def _stop_following(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    async def _drain(self) -> None:
        await self._stop_following()
        if self._edge is not None:
            await self._edge.stop(self._settings.server.drain_timeout_s + EDGE_LEAVES_S)
        await all_of([worker.stop(WORKER_DRAIN_S) for worker in self._workers])
        if self._fleet is not None:
            await self._fleet.close()
            self._fleet = None
        if self._broker is not None:
            await self._broker.stop()

    async def _kill_what_is_left(self) -> None:
        await self._stop_following()
        await all_of([service.kill() for service in self._services()])
        if self._fleet is not None:
            await self._fleet.close()
        if self._broker is not None:
            await self._broker.kill()

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._signalled)
        # nohup ignores SIGHUP, and means that of the terminal.
        stays = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        loop.add_signal_handler(signal.SIGHUP, self._hung_up, stays)

    def _hung_up(self, stays: bool) -> None:
        if self._terminal.is_gone():
            if not stays:
                self._signalled()
            return
        for service in self._services():
            service.hang_up()
        self._reloader.ask()

    async def _reload(self, again: Again) -> None:
        """Raises CannotStart."""
        assert self._fleet is not None
        self._plan = await register_again(self._fleet, again.settings, self._configured, self._plan)
        self._configured = again.settings

    def _signalled(self) -> None:
        (self._force_asked if self._stop_asked.is_set() else self._stop_asked).set()


def _names_no_model(settings: Settings) -> bool:
    """Whether the plan is the default model. `--backend echo` asks for one by name."""
    return not settings.models and settings.runtime.backend != "echo"


def _tell_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s are not followed any more: %r", task.get_name(), error, exc_info=error)


def _running_worker(service: Service) -> RunningWorker:
    assert service.facts is not None and service.pid is not None
    facts = service.facts
    return RunningWorker(service.pid, facts["id"], facts["backend"], facts["metrics"])
