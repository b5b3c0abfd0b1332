"""One row of the settings table, and a value together with the place it came from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from ops.settings.errors import SettingsError
from ops.settings.kinds import BadValue, Kind

T = TypeVar("T")

PREFIX = "INFERFLUX_"


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """A key with all that loader, `--help` and the reference page know about it.

    While a feature is not there (`available` false) its default is its off value, and any other value is refused.
    A `secret` is read from the environment only, or from the file that `<variable>_FILE` names. `key` is empty for what
    exists only as a flag or variable. In keys of models `<id>` stands for the model's id.
    """

    key: str
    kind: Kind[T]
    default: T
    help: str
    flag: str | None = None
    env: str | None = None
    available: bool = True
    secret: bool = False

    @property
    def generic_env(self) -> str | None:
        """`INFERFLUX_<SECTION>__<KEY>`, the variable that every key has."""
        return PREFIX + self.key.upper().replace(".", "__") if self.key else None

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(name for name in (self.env, self.generic_env) if name)

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.key or self.flag or self.env or ""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was found: `server.yaml:3`, `variable INFERFLUX_…` or `flag --port`.

    `file` is the file that holds nothing but the value.
    """

    text: str
    is_flag: bool = False
    file: Path | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Given:
    """A value as it was written, before it is read as its setting's kind."""

    value: Any
    origin: Origin


def read(setting: Setting[T], given: Given, label: str | None = None) -> T:
    """The value of a setting. Raises SettingsError: not of the kind, or of a feature that is not there yet."""
    name = label or setting.label
    try:
        value = setting.kind.read(given.value)
    except BadValue as error:
        shown = "the value" if setting.secret or setting.kind.name == "map" else _shorten(given.value)
        detail = f" ({error})" if str(error) else ""
        raise SettingsError(
            f"{name} ({given.origin}): {shown} is not {setting.kind.allowed}{detail}", is_usage=given.origin.is_flag
        ) from None
    if not setting.available and value != setting.default:
        raise SettingsError(f"{name} ({given.origin}): not available in this version", is_usage=given.origin.is_flag)
    return value


def _shorten(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "…"
