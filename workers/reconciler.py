"""Makes a worker serve what it is wanted to: loads, exchanges and unloads models while others go on.

A new engine is loaded and has proved itself with a step before anything is taken from the old one. Then new requests go
to the new one, and the old one ends what it has.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from broker.backlog import has_queue
from broker.connection import Connection
from broker.errors import BrokerError
from schemas.control import LoadingModel, ServedModel
from workers.config import NotForThisWorker, WorkerConfig, WorkerModel
from workers.differences import Failure, compare
from workers.file_stamp import file_stamp
from workers.intake import Intake
from workers.loading import Loading
from workers.metrics import WorkerMetrics
from workers.registration import Registration, Wish
from workers.runners.base import RunnerError
from workers.runners.registry import create_runner

log = logging.getLogger("inferflux.worker")

# How often the files of models that did not load are looked at.
LOOK_EVERY_S = 1.0
QUEUE_MADE_S = 5.0
QUEUE_POLL_S = 0.05


class TooLittleMemory(RunnerError):
    """The model may fit once another one is gone."""


@dataclass(frozen=True, slots=True)
class _Held:
    """An engine with the key of what it has loaded, and about how much memory it takes."""

    key: str
    intake: Intake
    served: ServedModel
    memory_bytes: int


class Reconciler:
    """Lives on the event loop. Loads one model after another; closes at once.

    `on_change()` is called whenever `served`, `loading` or `failed` may be others.
    """

    def __init__(
        self,
        connection: Connection,
        config: WorkerConfig,
        metrics: WorkerMetrics,
        make_intake: Callable[[WorkerModel], Intake],
        on_change: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._config = config
        self._metrics = metrics
        self._make_intake = make_intake
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._registration = Registration(connection, config, self._registered)
        self._held: dict[str, _Held] = {}
        self._retiring: dict[Intake, _Held] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._failed: dict[str, Failure] = {}
        self._skipped: dict[str, str] = {}
        self._loading: Loading | None = None
        self._loader: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._is_settled = asyncio.Event()
        self._is_stopping = False
        self._task: asyncio.Task[None] | None = None

    @property
    def served(self) -> tuple[ServedModel, ...]:
        return tuple(held.served for held in self._held.values())

    @property
    def loading(self) -> tuple[LoadingModel, ...]:
        return () if self._loading is None else (self._loading.shown(),)

    @property
    def failed(self) -> dict[str, str]:
        return {model_id: failure.reason for model_id, failure in self._failed.items()}

    @property
    def failed_keys(self) -> dict[str, str]:
        return {model_id: failure.key for model_id, failure in self._failed.items()}

    @property
    def skipped(self) -> dict[str, str]:
        """Load keys of what another process has to serve, by model."""
        return dict(self._skipped)

    @property
    def credit(self) -> int:
        return sum(held.intake.credit for held in self._held.values())

    @property
    def trouble(self) -> str | None:
        """Why this process cannot serve any more."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            return f"the reconciler ended: {self._task.exception()!r}"
        return next((intake.trouble for intake in self.intakes() if intake.trouble is not None), None)

    def intakes(self) -> Iterator[Intake]:
        """All that may have requests, those that end included."""
        yield from [held.intake for held in self._held.values()]
        yield from list(self._retiring)

    async def start(self) -> None:
        """Load what is wanted now; returns when each model serves or has failed."""
        await self._registration.start()
        self._task = asyncio.create_task(self._run(), name="reconciler")
        settled = asyncio.create_task(self._is_settled.wait())
        await asyncio.wait({self._task, settled}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            settled.cancel()
            self._task.result()

    async def finish(self) -> None:
        """Load and take nothing more; return when all that was taken has ended."""
        await self._stop_reconciling()
        for held in list(self._held.values()):
            self._let_go(held, is_unloaded=not self._registration.is_registered(held.served.id))
        self._held.clear()
        self._on_change()
        while self._leaving:
            await asyncio.wait(self._leaving)

    async def stop(self) -> None:
        """Load nothing more and let nothing end by itself: whoever calls hands the work back. May be called again."""
        await self._stop_reconciling()
        for task in list(self._leaving):
            task.cancel()
        await asyncio.gather(*self._leaving, return_exceptions=True)

    async def _stop_reconciling(self) -> None:
        self._is_stopping = True
        for task in (self._task, self._loader):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
        await self._registration.close()

    def _registered(self) -> None:
        for held in self._held.values():
            held.intake.retry()
        self._news.set()

    async def _run(self) -> None:
        while True:
            self._news.clear()
            self._reconcile()
            if self._loader is None:
                self._is_settled.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S if self._failed else None):
                    await self._news.wait()

    def _reconcile(self) -> None:
        wishes = self._registration.wanted()
        stamps = {model_id: _stamp(wishes[model_id]) for model_id in self._failed if model_id in wishes}
        differences = compare(
            {model_id: wish.key for model_id, wish in wishes.items()},
            {model_id: held.key for model_id, held in self._held.items()},
            self._failed,
            self._skipped,
            stamps,
            time.monotonic(),
        )
        for model_id in differences.forget:
            self._failed.pop(model_id, None)
            self._skipped.pop(model_id, None)
        for model_id in differences.close:
            log.info("model %s is unloaded: what is queued for it is answered first", model_id)
            self._let_go(self._held.pop(model_id), is_unloaded=True)
        if differences.load and self._loader is None:
            model_id = differences.load[0]
            self._loader = asyncio.create_task(self._load(model_id, wishes[model_id]), name=f"load {model_id}")
            self._loader.add_done_callback(self._loaded)
        if differences.forget or differences.close:
            self._on_change()

    def _loaded(self, loader: asyncio.Task[None]) -> None:
        self._loader = self._loading = None
        if not loader.cancelled() and (error := loader.exception()) is not None:
            log.error("%s ended: %r", loader.get_name(), error, exc_info=error)
        self._news.set()
        self._on_change()

    async def _load(self, model_id: str, wish: Wish) -> None:
        stamp = _stamp(wish)
        self._loading = loading = Loading(model_id, self._progressed)
        before = self._failed.get(model_id)
        if before is not None and before.key != wish.key:  # that is about a card of the past
            del self._failed[model_id]
        self._on_change()
        try:
            held = await self._open(wish, loading)
        except NotForThisWorker as reason:
            log.info("model %s is for another worker: %s", model_id, reason)
            self._skipped[model_id] = wish.key
            self._failed.pop(model_id, None)
        except Exception as error:
            self._note_failure(model_id, wish, stamp, error)
        else:
            await self._put_in_service(model_id, held)

    async def _open(self, wish: Wish, loading: Loading) -> _Held:
        """A loaded engine that has computed a step. Raises RunnerError, NotForThisWorker."""
        model = wish.model
        if model is None:
            assert self._config.plan is not None and wish.card is not None
            model = await asyncio.to_thread(self._config.plan, wish.card, loading.progress)
        self._check_memory(model)
        loading.progress("loading")
        # A library may take seconds to import.
        await asyncio.to_thread(create_runner, model.backend)
        spec = replace(model.spec, progress=loading.progress)
        intake = self._make_intake(replace(model, spec=spec))
        try:
            served = await intake.open()
        except BaseException:
            await intake.close()
            raise
        if wish.card is not None:
            served = served.model_copy(update={"load_key": wish.key})
        return _Held(wish.key, intake, served, model.memory_bytes)

    def _check_memory(self, model: WorkerModel) -> None:
        budget = self._config.memory_bytes
        if budget is None:
            return
        taken = sum(held.memory_bytes for held in (*self._held.values(), *self._retiring.values()))
        if taken + model.memory_bytes > budget:
            raise TooLittleMemory(
                f"{model.spec.model_id} needs about {_mib(model.memory_bytes)}, and of the {_mib(budget)} of "
                f"runtime.memory_bytes {_mib(max(0, budget - taken))} are left"
            )

    async def _put_in_service(self, model_id: str, held: _Held) -> None:
        wish = self._registration.wanted().get(model_id)
        if self._is_stopping or wish is None or wish.key != held.key:  # something else is wanted by now
            await held.intake.close()
            return
        old = self._held.pop(model_id, None)
        self._held[model_id] = held
        self._failed.pop(model_id, None)
        self._skipped.pop(model_id, None)
        self._metrics.model_loads.labels(model_id, "ok").inc()
        await held.intake.pull()
        await self._until_queue_is_made(model_id)
        self._loading = None
        log.info("model %s is served", model_id, extra={"backend": held.served.backend})
        self._on_change()
        if old is not None:
            self._let_go(old, is_unloaded=False)

    async def _until_queue_is_made(self, model_id: str) -> None:
        """A registered model gets its queue at about the same time. Whoever hears of us shall find it."""
        with contextlib.suppress(TimeoutError, BrokerError):
            async with asyncio.timeout(QUEUE_MADE_S):
                while self._registration.is_registered(model_id):
                    if await has_queue(self._connection, model_id, lanes=self._config.lanes):
                        return
                    await asyncio.sleep(QUEUE_POLL_S)

    def _note_failure(self, model_id: str, wish: Wish, stamp: object, error: Exception) -> None:
        reason = str(error) or repr(error)
        before = self._failed.get(model_id)
        times = before.times + 1 if before is not None and (before.key, before.stamp) == (wish.key, stamp) else 1
        self._failed[model_id] = Failure(
            key=wish.key,
            reason=reason,
            stamp=stamp,
            times=times,
            retry_at=time.monotonic() + Failure.backoff_s(times),
            lacks_memory=isinstance(error, TooLittleMemory),
        )
        self._metrics.model_loads.labels(model_id, "failed").inc()
        if before is not None and before.reason == reason:
            return
        if model_id in self._held:
            log.error("model %s goes on as it was: %s", model_id, reason)
        else:
            log.error("model %s is not served: %s", model_id, reason)
        if not isinstance(error, RunnerError):
            log.error("this should not have happened", exc_info=error)

    def _let_go(self, held: _Held, *, is_unloaded: bool) -> None:
        self._retiring[held.intake] = held
        task = asyncio.create_task(self._end(held, is_unloaded=is_unloaded), name=f"end of {held.served.id}")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _end(self, held: _Held, *, is_unloaded: bool) -> None:
        if is_unloaded:
            await held.intake.run_empty()
        await held.intake.retire()
        del self._retiring[held.intake]
        await held.intake.close()
        if held.served.id not in self._held:
            self._metrics.forget(held.served.id)
        log.info("model %s: the engine that is not needed any more has ended", held.served.id)
        for model_id, failure in list(self._failed.items()):
            if failure.lacks_memory:
                del self._failed[model_id]
        self._news.set()

    def _progressed(self) -> None:
        """On any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._on_change)


def _stamp(wish: Wish) -> object:
    source = wish.card.source if wish.card is not None else wish.model.spec.source if wish.model is not None else ""
    return file_stamp(source)


def _mib(number: int) -> str:
    return f"{number / 2**20:.0f} MiB"
