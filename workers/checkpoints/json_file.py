"""The JSON files of a model's folder."""

from pathlib import Path
from typing import Any

import orjson

from workers.runners.base import RunnerError


def read_json(path: Path) -> dict[str, Any]:
    """An object. Raises RunnerError."""
    try:
        value = orjson.loads(path.read_bytes())
    except OSError as error:
        raise RunnerError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise RunnerError(f"{path}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise RunnerError(f"{path}: not a JSON object")
    return value


def read_json_if_there(path: Path) -> dict[str, Any]:
    """Empty when there is no such file."""
    return read_json(path) if path.exists() else {}
