"""How it stands with the manifest of models that this edge follows."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from producer.metrics import EdgeMetrics


@dataclass(frozen=True, slots=True)
class ManifestStatus:
    """`models` are those of the last manifest that could be used, `skipped` why some of them are not its own.

    `reason` says why what stands in the file now is not used, as of the last attempt; None when it is. `since` is Unix
    time: when what stands there was taken, or ceased to be of use.
    """

    path: str
    is_ok: bool
    reason: str | None
    models: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    since: float = 0.0

    def shown(self) -> dict[str, Any]:
        """As administrators see it."""
        return {
            "path": self.path,
            "used": self.is_ok,
            "since": int(self.since),
            "error": self.reason,
            "models": list(self.models),
            "skipped": [{"id": model, "reason": reason} for model, reason in self.skipped.items()],
        }


class ManifestStanding:
    """`current` is None while no manifest is followed."""

    def __init__(self, metrics: EdgeMetrics) -> None:
        self.current: ManifestStatus | None = None
        self._metrics = metrics
        metrics.manifest_ok.set(1)

    def begin(self, path: Path) -> None:
        self._hold(ManifestStatus(str(path), False, "it has not been read yet"))

    def refused(self, reason: str) -> None:
        """What stands in the file cannot be used."""
        self._metrics.manifest_errors.inc()
        self.waits(reason)

    def waits(self, reason: str) -> None:
        """It is not registered, for now."""
        assert self.current is not None
        self._hold(replace(self.current, is_ok=False, reason=reason))

    def taken(self, models: tuple[str, ...], skipped: Mapping[str, str]) -> None:
        assert self.current is not None
        self._hold(ManifestStatus(self.current.path, True, None, models, dict(skipped)))

    def _hold(self, status: ManifestStatus) -> None:
        before = self.current
        goes_on = before is not None and not (before.is_ok or status.is_ok)
        since = before.since if before is not None and goes_on else time.time()
        self.current = replace(status, since=since)
        self._metrics.manifest_ok.set(status.is_ok)
