"""Finds settings in the environment, and refuses every `INFERFLUX_*` variable that means nothing."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ops.settings.errors import SettingsError, nearest
from ops.settings.setting import PREFIX, Given, Origin, Setting
from ops.settings.table import MODEL_FIELDS, TABLE

MODELS_PREFIX = "INFERFLUX_MODELS__"
_OF_OTHERS = ("INFERFLUX_TEST_", "INFERFLUX_BUILD_")
# Kubernetes describes every service of the namespace to every container, so one called `inferflux-…` lands here.
_SERVICE_LINK = re.compile(r".*(_SERVICE_HOST|_SERVICE_PORT(_.*)?|_PORT_[0-9]+_.*)")
_BY_VARIABLE: dict[str, Setting[object]] = {
    variable: row for row in TABLE if "<id>" not in row.key for variable in row.variables
}
# Names that other programs know, too; empty is as good as not there.
_STANDARD = frozenset(name for name in _BY_VARIABLE if not name.startswith(PREFIX))
_SECRET_FILES = {f"{variable}_FILE": row for variable, row in _BY_VARIABLE.items() if row.secret}


@dataclass(frozen=True, slots=True)
class ModelVariable:
    """`INFERFLUX_MODELS__<ID>__<FIELD>`: the id in capitals, other characters as `_`."""

    id_token: str
    field: str
    given: Given


@dataclass(slots=True)
class Environment:
    """Settings of the environment, by label."""

    values: dict[str, Given] = field(default_factory=dict)
    models: list[ModelVariable] = field(default_factory=list)


def scan(environ: Mapping[str, str]) -> Environment:
    """Read all variables that start with INFERFLUX_, and the standard ones that are settings.

    Raises SettingsError naming an unknown or contradicting one.
    """
    found = Environment()
    for name in _ours(environ):
        if name in _BY_VARIABLE:
            _take(found, _BY_VARIABLE[name], Given(environ[name], Origin(f"variable {name}")))
        elif name in _SECRET_FILES:
            _take(found, _SECRET_FILES[name], _read_secret(name, environ[name]))
        elif name.startswith(MODELS_PREFIX):
            found.models.append(_model_variable(name, environ[name]))
        else:
            raise SettingsError(f"unknown variable {name}{nearest(name, _known())}")
    return found


def id_token(model_id: str) -> str:
    """How a model's id is written inside a variable's name."""
    return re.sub(r"[^A-Z0-9]", "_", model_id.upper())


def _ours(environ: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(environ):
        if name in _STANDARD and environ[name]:
            yield name
        if not name.startswith(PREFIX) or name.startswith(_OF_OTHERS) or _is_service_link(name, environ[name]):
            continue
        yield name


def _is_service_link(name: str, value: str) -> bool:
    return _SERVICE_LINK.fullmatch(name) is not None or (name.endswith("_PORT") and value.startswith("tcp://"))


def _take(found: Environment, row: Setting[object], given: Given) -> None:
    # An empty variable of what has no key is as good as none: compose files write `${NAME:-}`.
    if not row.key and given.value == "":
        return
    earlier = found.values.get(row.label)
    if earlier is not None and earlier.value != given.value:
        raise SettingsError(f"{row.label}: {earlier.origin} and {given.origin} say different things; set one of them")
    found.values[row.label] = given


def _read_secret(name: str, path: str) -> Given:
    file = Path(path).expanduser().absolute()
    try:
        return Given(file.read_text(encoding="utf-8").strip(), Origin(f"file of {name}", file=file))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"variable {name}: {path}: {getattr(error, 'strerror', None) or 'not text'}") from None


def _model_variable(name: str, text: str) -> ModelVariable:
    token, separator, field_name = name.removeprefix(MODELS_PREFIX).rpartition("__")
    if not separator or field_name.lower() not in MODEL_FIELDS:
        known = (f"{MODELS_PREFIX}{token or '<ID>'}__{known.upper()}" for known in MODEL_FIELDS)
        raise SettingsError(f"unknown variable {name}{nearest(name, known)}")
    return ModelVariable(token, field_name.lower(), Given(text, Origin(f"variable {name}")))


def _known() -> list[str]:
    return [*_BY_VARIABLE, *_SECRET_FILES]
