"""How it stands with the manifest of models that this edge follows."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from producer.metrics import EdgeMetrics


@dataclass(frozen=True, slots=True)
class ManifestStatus:
    """`models` are those of the last manifest that could be used, `skipped` why some of them are not its own.

    `reason` says why what stands in the file now is not used; None when it is. `changed_at` is Unix time.
    """

    path: str
    is_ok: bool
    reason: str | None
    models: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    changed_at: float = 0.0


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
        self.current = replace(status, changed_at=time.time())
        self._metrics.manifest_ok.set(status.is_ok)
