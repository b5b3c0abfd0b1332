"""What a worker is told of a model: of a planned one, and of one that a card describes."""

from collections.abc import Callable

from ops.errors import CannotStart
from ops.hub.progress import LogProgress
from ops.serving.backends import can_share_process
from ops.serving.memory import estimate
from ops.serving.plan import PlannedModel, Planner
from ops.serving.sharing import on_one_of
from ops.settings.settings import ModelSettings
from schemas.control import ModelCard
from workers.config import NotForThisWorker, Progress, WorkerModel
from workers.runners.base import RunnerError, RunnerSpec


def model_settings(card: ModelCard) -> ModelSettings:
    """The settings that a card was made from, or could have been."""
    return ModelSettings(
        id=card.id,
        source=card.source,
        backend=card.backend,
        default=card.default,
        aliases=card.aliases,
        context=card.context,
        sequences=card.sequences,
        threads=card.threads,
        gpu_layers=card.gpu_layers,
        kv_type=card.kv_type,
        batch_tokens=card.batch_tokens,
        chat_template=card.chat_template,
        max_output_tokens=card.max_output_tokens,
        queue_max=card.queue_max,
        queue_max_tokens=card.queue_max_tokens,
        no_worker=card.no_worker,
    )


def worker_model(planned: PlannedModel, kv_pages: int | None) -> WorkerModel:
    """Raises OSError when the files are gone by now."""
    settings = planned.settings
    memory = estimate(settings, planned.source)
    spec = runner_spec_of(planned, kv_pages)
    return WorkerModel(spec, planned.backend, planned.reason, settings.max_output_tokens, memory)


def runner_spec_of(planned: PlannedModel, kv_pages: int | None) -> RunnerSpec:
    settings = planned.settings
    return RunnerSpec(
        model_id=settings.id,
        source=planned.source.location,
        context=settings.context,
        sequences=settings.sequences,
        threads=settings.threads,
        gpu_layers=settings.gpu_layers,
        kv_type=settings.kv_type,
        batch_tokens=settings.batch_tokens,
        chat_template=planned.chat_template,
        kv_pages=kv_pages,
    )


class CardPlanner:
    """Finds out how this process serves what a card says. One process keeps to the libraries that can share it.

    `planned` is the last plan by model. `is_bound`: also echo is not exchanged for a library, or one for echo.
    `calibrate` measures what a plan leaves open, and is called while nothing is served here; a serving process goes by
    what is remembered.
    """

    def __init__(
        self,
        planner: Callable[[], Planner],
        own: tuple[PlannedModel, ...],
        *,
        is_bound: bool,
        calibrate: Callable[[PlannedModel], object] | None = None,
    ) -> None:
        self._make_planner = planner
        self._is_bound = is_bound
        self._calibrate = calibrate
        self._planner: Planner | None = None
        self._backends = {model.backend for model in own}
        self.planned = {model.settings.id: model for model in own}

    def __call__(self, card: ModelCard, progress: Progress) -> WorkerModel:
        """On a thread of its own. Raises RunnerError with the reason, NotForThisWorker."""
        progress("looking for the files", None)
        self._planner = planner = self._planner or self._make_planner()
        _refuse_other_backend(card, planner.runtime.backend)
        settings, on_bytes = model_settings(card), _Download(card.source, progress)
        try:
            planned = planner.plan(settings, on_bytes)
            if planned.is_open and self._calibrate is not None and not self.planned:
                progress("calibrating", None)
                self._calibrate(planned)
                planned = planner.plan(settings, on_bytes)
            if not self._is_bound:
                planned = on_one_of(planned, self._backends)
            model = worker_model(planned, planner.runtime.kv_cpu_pages)
        except (CannotStart, OSError) as error:
            raise RunnerError(str(error)) from None
        backends = self._backends | {planned.backend}
        if not can_share_process(backends) or (self._is_bound and len(backends) > 1):
            raise NotForThisWorker(f"it needs {planned.backend}, and this process runs {', '.join(self._backends)}")
        self._backends = backends
        self.planned[card.id] = planned
        return model


def _refuse_other_backend(card: ModelCard, flag: str) -> None:
    """The flag goes over what a configuration says, whose cards have it already. Who asks since is told."""
    if flag != "auto" and card.origin != "config" and card.backend not in ("auto", flag):
        raise RunnerError(f"model {card.id} asks for backend {card.backend}, and --backend {flag} goes over it")


class _Download:
    """Tells how far a download is in the log and in the worker's advert."""

    def __init__(self, source: str, progress: Progress) -> None:
        self._log = LogProgress(source)
        self._progress = progress

    def __call__(self, done: int, total: int) -> None:
        self._log(done, total)
        self._progress("downloading", done / total if total else None)
