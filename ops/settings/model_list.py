"""`INFERFLUX_MODELS`: all models in one variable, `id=…,path=…,backend=…,default=true;id=…,…`."""

from typing import Any

from ops.settings.kinds import BadValue, Kind

# One model as it was written: field name to text. `path` is another word for `source`.
Draft = tuple[tuple[str, str], ...]


def read(value: Any) -> tuple[Draft, ...]:
    if not isinstance(value, str):
        raise BadValue
    return tuple(_read_draft(part) for part in value.split(";") if part.strip())


def _read_draft(part: str) -> Draft:
    fields: dict[str, str] = {}
    for item in part.split(","):
        name, separator, text = (piece.strip() for piece in item.partition("="))
        if not separator or not name:
            raise BadValue(f"{item.strip()!r} is not name=value")
        name = "source" if name == "path" else name
        if name in fields:
            raise BadValue(f"{name} twice for one model")
        fields[name] = text
    if not fields.get("id"):
        raise BadValue("a model without id")
    return tuple(fields.items())


def show(drafts: tuple[Draft, ...]) -> str:
    return ";".join(",".join(f"{name}={text}" for name, text in draft) for draft in drafts)


KIND: Kind[tuple[Draft, ...]] = Kind("models", "written as id=…,path=…,backend=…,default=true;…", read, show)
