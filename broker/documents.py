"""Documents in the registry's buckets, read and written by releases of different age.

A reader takes what it knows and ignores the rest, so that processes can be upgraded one by one. Whoever changes a
document writes back what it did not know.
"""

import json
from typing import Any, TypeVar

from pydantic import BaseModel

Document = TypeVar("Document", bound=BaseModel)


def read(kind: type[Document], payload: bytes) -> Document:
    """Raises ValidationError for what is none; further fields, at any depth, are no reason."""
    return kind.model_validate_json(payload, extra="ignore")


def unknown_fields(kind: type[BaseModel], payload: bytes) -> dict[str, Any]:
    """What stands at the top of a document, in JSON, that `kind` has no field for. `payload` has been read."""
    values = json.loads(payload)
    return {name: value for name, value in values.items() if name not in kind.model_fields}


def written(document: BaseModel, unknown: dict[str, Any]) -> bytes:
    """JSON of a document, with what an earlier one had besides."""
    if not unknown:
        return document.model_dump_json().encode()
    return json.dumps({**unknown, **document.model_dump(mode="json")}).encode()
