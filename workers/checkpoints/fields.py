"""Numbers in a model's configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from workers.runners.base import RunnerError


class Fields:
    """Values by key, `prefix` before each. Null is absent. Raises RunnerError for what is missing or no such number."""

    def __init__(self, path: Path, values: Mapping[str, Any], prefix: str = "") -> None:
        self.path = path
        self._values = values
        self._prefix = prefix

    def optional(self, key: str, default: Any) -> Any:
        value = self._values.get(self._prefix + key)
        return default if value is None else value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.optional(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._refusal(key, value)
        return float(value)

    def count(self, key: str, default: int | None = None) -> int:
        """At least 1; 0 where that is the default."""
        value = self.optional(key, default)
        if isinstance(value, np.ndarray) and len(value) and (value == value[0]).all():
            # One for each layer, all the same.
            value = value[0].item()
        if isinstance(value, bool) or not isinstance(value, int) or value < 0 or (value == 0 and default != 0):
            raise self._refusal(key, value)
        return value

    def _refusal(self, key: str, value: object) -> RunnerError:
        what = "missing" if value is None else f"{value!r}, which is not supported"
        return RunnerError(f"{self.path}: {self._prefix}{key} is {what}")
