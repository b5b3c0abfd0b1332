"""The configured models: merged from file, environment and `--model`, then checked as a set."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from ops.settings import table
from ops.settings.environment import ModelVariable, id_token
from ops.settings.errors import SettingsError, nearest
from ops.settings.model_list import Draft
from ops.settings.setting import Given, Origin, Setting, read
from ops.settings.settings import ModelSettings
from ops.settings.yaml_file import ModelDrafts
from schemas.model_names import model_id_of

T = TypeVar("T")

RESERVED_ID = "default"
MAX_ID_LENGTH = 200


def read_models(
    from_file: ModelDrafts,
    variables: Sequence[ModelVariable],
    *,
    model_list: tuple[Draft, ...],
    only_source: str | None,
    default_id: str | None,
) -> tuple[ModelSettings, ...]:
    """All models, exactly one of them the default. Raises SettingsError."""
    if model_list and only_source:
        raise SettingsError("INFERFLUX_MODELS and --model (INFERFLUX_MODEL_PATH) are both set; set one of them")
    drafts = _from_list(model_list) if model_list else {name: dict(fields) for name, fields in from_file.items()}
    if only_source is not None:
        only_id = model_id_of(only_source)
        drafts = {only_id: {**drafts.get(only_id, {}), "source": Given(only_source, Origin("--model"))}}
    for variable in variables:
        drafts[_id_of(variable, drafts)][variable.field] = variable.given
    return _with_one_default(read_model_set(drafts), default_id)


def read_model_set(drafts: ModelDrafts) -> tuple[ModelSettings, ...]:
    """Models that stand together, with or without a default among them. Raises SettingsError."""
    models = tuple(_read_model(model_id, fields) for model_id, fields in drafts.items())
    _check_names(models)
    return models


def model_from_source(source: str) -> ModelSettings:
    """The settings of a model that nobody configured: the default one, all else as the table has it."""
    model = _read_model(model_id_of(source), {"source": Given(source, Origin("the default"))})
    return replace(model, default=True)


def _from_list(model_list: tuple[Draft, ...]) -> ModelDrafts:
    origin = Origin("variable INFERFLUX_MODELS")
    drafts: ModelDrafts = {}
    for draft in model_list:
        fields = dict(draft)
        model_id = fields.pop("id")
        if model_id in drafts:
            raise SettingsError(f"models ({origin}): {model_id!r} twice")
        for name in fields:
            if name not in table.MODEL_FIELDS:
                raise SettingsError(f"unknown field {name!r} ({origin}){nearest(name, table.MODEL_FIELDS)}")
        drafts[model_id] = {name: Given(text, origin) for name, text in fields.items()}
    return drafts


def _id_of(variable: ModelVariable, drafts: ModelDrafts) -> str:
    matching = [model_id for model_id in drafts if id_token(model_id) == variable.id_token.upper()]
    if len(matching) != 1:
        known = ", ".join(drafts) or "none"
        raise SettingsError(f"{variable.given.origin}: names no one of the configured models ({known})")
    return matching[0]


def _read_model(model_id: str, fields: dict[str, Given]) -> ModelSettings:
    def get(setting: Setting[T]) -> T:
        given = fields.get(setting.key.removeprefix("models.<id>."))
        return setting.default if given is None else read(setting, given, setting.key.replace("<id>", model_id))

    if "source" not in fields:
        raise SettingsError(
            f"models.{model_id}.source is missing: {table.MODEL_SOURCE.help.removesuffix(' Required.')}"
        )
    return ModelSettings(
        id=model_id,
        source=get(table.MODEL_SOURCE),
        backend=get(table.MODEL_BACKEND),
        default=get(table.MODEL_DEFAULT),
        aliases=get(table.MODEL_ALIASES),
        context=get(table.MODEL_CONTEXT),
        sequences=get(table.MODEL_SEQUENCES),
        threads=get(table.MODEL_THREADS),
        gpu_layers=get(table.MODEL_GPU_LAYERS),
        kv_type=get(table.MODEL_KV_TYPE),
        batch_tokens=get(table.MODEL_BATCH_TOKENS),
        chat_template=get(table.MODEL_CHAT_TEMPLATE),
        max_output_tokens=get(table.MODEL_MAX_OUTPUT),
        queue_max=get(table.MODEL_QUEUE_MAX),
        queue_max_tokens=get(table.MODEL_QUEUE_MAX_TOKENS),
        no_worker=get(table.MODEL_NO_WORKER),
    )


def _check_names(models: Sequence[ModelSettings]) -> None:
    taken: dict[str, str] = {}
    for model in models:
        for name in (model.id, *model.aliases):
            if name == RESERVED_ID or not name.isprintable() or " " in name or len(name) > MAX_ID_LENGTH:
                raise SettingsError(f"models.{model.id}: {name!r} cannot be the name of a model")
            if name in taken:
                raise SettingsError(f"models.{model.id}: the name {name!r} is already taken by {taken[name]!r}")
            taken[name] = model.id


def _with_one_default(models: tuple[ModelSettings, ...], default_id: str | None) -> tuple[ModelSettings, ...]:
    if not models:
        if default_id is not None:
            raise SettingsError(f"INFERFLUX_DEFAULT_MODEL_ID: no model {default_id!r} is configured")
        return ()
    marked = [model.id for model in models if model.default]
    if default_id is None and len(marked) > 1:
        raise SettingsError(f"models: {marked[0]!r} and {marked[1]!r} are both the default")
    chosen = default_id or (marked[0] if marked else models[0].id)
    if chosen not in {model.id for model in models}:
        known = [model.id for model in models]
        raise SettingsError(f"INFERFLUX_DEFAULT_MODEL_ID: no model {chosen!r} is configured{nearest(chosen, known)}")
    return tuple(replace(model, default=model.id == chosen) for model in models)
