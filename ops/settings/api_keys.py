"""API keys as they are configured: `auth.api_keys` in YAML, `INFERFLUX_API_KEYS` in the environment."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.settings.kinds import BadValue, Kind, document
from ops.settings.limits import read_limits
from schemas.policy import LimitSet

SCOPES = ("generate", "read", "admin")
PRIORITY_CLASSES = ("high", "normal", "low", "batch")
DEFAULT_SCOPES = ("generate", "read")
_FIELDS = ("name", "key", "key_file", "scopes", "tenant", "models", "ceiling", "limits")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key and what it opens.

    `name` None: it is called after its hash. `ceiling` None: high with scope admin, else normal. `limits` None: those
    for all keys. `is_default`: the
    well-known one, which nobody configured.
    """

    key: str
    scopes: tuple[str, ...] = DEFAULT_SCOPES
    name: str | None = None
    tenant: str = "default"
    models: tuple[str, ...] = ("*",)
    ceiling: str | None = None
    limits: LimitSet | None = None
    is_default: bool = False

    def __repr__(self) -> str:
        return f"ApiKey(name={self.name!r}, scopes={self.scopes!r})"


def read_document(value: Any) -> tuple[ApiKey, ...]:
    """Keys from a map `name: {key, scopes, …}` (or `name: key`), or from a list of `{key, scopes, …}`."""
    match value:
        case None:
            return ()
        case dict():
            return tuple(_read_entry(fields, str(name)) for name, fields in value.items())
        case list():
            return tuple(_read_entry(fields, None) for fields in value)
        case _:
            raise BadValue


def read_list(value: Any) -> tuple[ApiKey, ...]:
    """Keys from the text `key[:scope+scope],…`."""
    if not isinstance(value, str):
        raise BadValue
    return tuple(_read_item(item.strip()) for item in value.split(",") if item.strip())


def _read_item(item: str) -> ApiKey:
    key, separator, scopes = item.partition(":")
    if not key.strip():
        raise BadValue("an empty key")
    return ApiKey(key.strip(), _check_scopes(scopes.split("+")) if separator else DEFAULT_SCOPES)


def _read_entry(fields: Any, name: str | None) -> ApiKey:
    if isinstance(fields, str):
        fields = {"key": fields}
    if not isinstance(fields, dict):
        raise BadValue("a key is a text, or a map with 'key' and 'scopes'")
    unknown = [str(field) for field in fields if field not in _FIELDS]
    if unknown:
        raise BadValue(f"unknown field {unknown[0]!r}; known are {', '.join(_FIELDS)}")
    priority = fields.get("ceiling")
    if priority is not None and priority not in PRIORITY_CLASSES:
        raise BadValue(f"ceiling is one of {', '.join(PRIORITY_CLASSES)}")
    return ApiKey(
        key=_secret_of(fields),
        scopes=_check_scopes(_strings(fields.get("scopes", list(DEFAULT_SCOPES)), "scopes")),
        name=_check_name(_optional_text(fields.get("name", name), "name")),
        tenant=_optional_text(fields.get("tenant"), "tenant") or "default",
        models=tuple(_strings(fields.get("models", ["*"]), "models")),
        ceiling=priority,
        limits=None if fields.get("limits") is None else read_limits(fields["limits"]),
    )


def _secret_of(fields: dict[str, Any]) -> str:
    key, key_file = fields.get("key"), fields.get("key_file")
    if (key is None) == (key_file is None):
        raise BadValue("each key has either 'key' or 'key_file'")
    if key_file is not None:
        try:
            key = Path(str(key_file)).expanduser().read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadValue(f"key_file {key_file}: {getattr(error, 'strerror', None) or 'not text'}") from None
    if not isinstance(key, str) or not key.strip() or any(char.isspace() for char in key):
        raise BadValue("a key is a text without spaces")
    return key


def _check_scopes(scopes: list[str]) -> tuple[str, ...]:
    for scope in scopes:
        if scope not in SCOPES:
            raise BadValue(f"scope {scope!r} is not one of {', '.join(SCOPES)}")
    if not scopes:
        raise BadValue("a key without scopes opens nothing")
    return tuple(scopes)


def _check_name(name: str | None) -> str | None:
    if name is not None and name.startswith("oidc:"):
        raise BadValue("names that begin with 'oidc:' belong to tokens")
    return name


def _strings(value: Any, field: str) -> list[str]:
    if isinstance(value, str):
        value = [part.strip() for part in value.replace("+", ",").split(",")]
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise BadValue(f"{field} is a list of names")
    return value


def _optional_text(value: Any, field: str) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise BadValue(f"{field} is a text")
    return value


def _hide(keys: tuple[ApiKey, ...]) -> str:
    return "" if not keys else f"{len(keys)} keys"


DOCUMENT = document(read_document, "a map of keys by name, or a list of {key, scopes}", _hide)
LIST = Kind("keys", "keys written as key[:scope+scope],…", read_list, _hide)
