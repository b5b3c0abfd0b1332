"""How far the loading of one model is, as the worker's advert tells it."""

import time
from collections.abc import Callable
from threading import Lock

from schemas.control import LoadingModel

# The advert is put again for a difference that can be seen, not for each tensor.
_STEP = 0.05


class Loading:
    """Written by the threads that load, read by the event loop. `on_step` may be called on any thread."""

    def __init__(self, model_id: str, on_step: Callable[[], None]) -> None:
        self.model_id = model_id
        self._on_step = on_step
        self._lock = Lock()
        self._began_at = time.monotonic()
        self._stage = "waiting"
        self._fraction: float | None = None

    def progress(self, stage: str, fraction: float | None = None) -> None:
        """A stage that begins, or more of one that is done."""
        with self._lock:
            told = self._fraction or 0.0
            is_news = stage != self._stage or (fraction is not None and abs(fraction - told) >= _STEP)
            if is_news:
                self._stage, self._fraction = stage, fraction
        if is_news:
            self._on_step()

    def shown(self) -> LoadingModel:
        with self._lock:
            return LoadingModel(
                model=self.model_id,
                stage=self._stage,
                fraction=None if self._fraction is None else round(min(1.0, max(0.0, self._fraction)), 3),
                elapsed_s=round(time.monotonic() - self._began_at, 1),
            )
