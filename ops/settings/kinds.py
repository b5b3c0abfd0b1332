"""Types of setting values. Each reads the text of a variable or flag and the value of a YAML document alike."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")
_ORIGIN = re.compile(r"https?://[^/?#@\s,]+", re.IGNORECASE)


class BadValue(ValueError):
    """The value is not of the kind; the text of the kind says what is allowed."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """`allowed` completes the sentence 'allowed is …'. `read` takes text or a YAML scalar, list or map."""

    name: str
    allowed: str
    read: Callable[[Any], T]
    show: Callable[[T], str] = str


def text(allowed: str = "text") -> Kind[str]:
    return Kind("text", allowed, _read_text)


def optional(kind: Kind[T]) -> Kind[T | None]:
    """The kind, or nothing: an empty value or YAML null."""

    def read(value: Any) -> T | None:
        return None if value is None or value == "" else kind.read(value)

    def show(value: T | None) -> str:
        return "" if value is None else kind.show(value)

    return Kind(kind.name, kind.allowed, read, show)


def boolean() -> Kind[bool]:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}

    def read(value: Any) -> bool:
        if isinstance(value, bool):
            return value
        try:
            return words[str(value).strip().lower()]
        except KeyError:
            raise BadValue from None

    return Kind("boolean", "true or false", read, lambda value: str(value).lower())


def choice(*names: str) -> Kind[str]:
    def read(value: Any) -> str:
        if value not in names:
            raise BadValue
        return str(value)

    return Kind("choice", "one of " + ", ".join(names), read)


def listing(item: Kind[T], *, empty: bool = True) -> Kind[tuple[T, ...]]:
    """A YAML list, or text separated by commas; `empty` says whether nothing may be in it."""

    def read(value: Any) -> tuple[T, ...]:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if value is None:
            value = []
        if not isinstance(value, list) or not (value or empty):
            raise BadValue
        return tuple(item.read(part) for part in value)

    def show(value: tuple[T, ...]) -> str:
        return ",".join(item.show(part) for part in value)

    return Kind("list", f"a list, each {item.allowed}", read, show)


def path() -> Kind[Path]:
    def read(value: Any) -> Path:
        try:
            return Path(_read_text(value)).expanduser()
        except RuntimeError:
            raise BadValue("no such user") from None

    return Kind("path", "a path", read)


def document(check: Callable[[Any], T], allowed: str, show: Callable[[T], str]) -> Kind[T]:
    """A YAML map or list, or the same as JSON text; `check` turns it into the value."""

    def read(value: Any) -> T:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                raise BadValue from None
        return check(value)

    return Kind("map", allowed, read, show)


def nats_url() -> Kind[str]:
    schemes = ("nats://", "tls://", "ws://", "wss://")

    def read(value: Any) -> str:
        url = _read_text(value)
        if any(char.isspace() for char in url) or not all(part.startswith(schemes) for part in url.split(",")):
            raise BadValue
        return url

    return Kind("URL", "a URL such as nats://host:4222, or several with commas between them", read)


def http_url() -> Kind[str]:
    def read(value: Any) -> str:
        url = _read_text(value).strip()
        try:
            parts = urlsplit(url)
            is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            is_one = False
        if not is_one or any(char.isspace() for char in url):
            raise BadValue
        return url

    return Kind("URL", "an http:// or https:// URL", read)


def origin() -> Kind[str]:
    """As a browser sends it; a path would never match."""

    def read(value: Any) -> str:
        result = _read_text(value).rstrip("/")
        if result != "*" and _ORIGIN.fullmatch(result) is None:
            raise BadValue
        return result

    return Kind("origin", "an origin such as https://app.example, or *", read)


def _read_text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadValue
    result = str(value)
    if not result.strip() or "\0" in result:
        raise BadValue
    return result
