"""Measures the backends among which speed decides, one after the other, and remembers the verdict."""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ops.calibration.candidate import Limits, run_candidate
from ops.calibration.choice import TIE, decide
from ops.calibration.estimates import lacks_memory
from ops.calibration.key import Key, key_of, sequences_of
from ops.calibration.lookup import obstacle, room_here
from ops.calibration.machine_lock import Busy, lock_file, machine_lock
from ops.calibration.request import Request, spec_document
from ops.calibration.results import Results
from ops.calibration.steps import Effort
from ops.calibration.verdict import Outcome, Verdict
from ops.serving.plan import PlannedModel
from ops.serving.worker_models import runner_spec_of
from ops.settings.settings import RuntimeSettings
from workers.runners.devices import Device
from workers.runners.machine import num_processors

log = logging.getLogger("inferflux.calibration")

# A kernel is compiled when a model is opened for the first time; that may take minutes on a slow machine.
OPEN_S = 300.0

Run = Callable[[Request, Limits, threading.Event], Outcome]


def load_of_machine() -> float:
    """Of the last minute, by processor: above 1 somebody waits. 0 where the system does not tell."""
    try:
        return os.getloadavg()[0] / num_processors()
    except OSError:
        return 0.0


class Calibrator:
    """On any thread, which it blocks. Once `stop` is set it ends the process that measures, and raises Stopped."""

    def __init__(
        self,
        runtime: RuntimeSettings,
        device: Device,
        results: Results,
        stop: threading.Event,
        *,
        run: Run = run_candidate,
        lock: Path | None = None,
        effort: Effort = Effort(),  # noqa: B008 - immutable
        clock: Callable[[], float] = time.monotonic,
        load: Callable[[], float] = load_of_machine,
    ) -> None:
        self._runtime = runtime
        self._device = device
        self._results = results
        self._stop = stop
        self._run = run
        self._lock = lock or lock_file()
        self._effort = effort
        self._clock = clock
        self._load = load

    def calibrate(self, model: PlannedModel, *, again: bool = False) -> Verdict | None:
        """The remembered verdict, or a new one; `again`: a new one in any case. None, and why in the log, when there is
        nothing to choose, or it cannot be measured here."""
        if not model.rivals:
            return None
        name = model.settings.id
        try:
            key = key_of(model.settings, model.source, model.rivals, self._device)
            if not again and (known := self._known(key)) is not None:
                return known
            limit_s = self._runtime.calibrate_limit_s
            why_not = obstacle(model.settings, model.source, model.rivals, limit_s, self._device)
            if why_not is not None:
                log.info("model %s is not calibrated, by preference it runs on %s: %s", name, model.backend, why_not)
                return None
            with machine_lock(self._lock, limit_s + OPEN_S, self._stop):
                if not again and (known := self._known(key)) is not None:
                    return known  # whoever had the lock before has just measured it
                return self._measure(model, key)
        except Busy:
            log.warning("model %s is not calibrated: another calibration on this machine does not end", name)
        except OSError as error:
            log.warning("model %s is not calibrated: %s", name, error)
        return None

    def _known(self, key: Key) -> Verdict | None:
        """One that is not final stands as long as it could not be bettered."""
        verdict = self._results.exact(key)
        if verdict is None or verdict.is_final:
            return verdict
        return verdict if verdict.was_disturbed and verdict.backend is not None and self._load() > 1 else None

    def _measure(self, model: PlannedModel, key: Key) -> Verdict:
        name, sequences = model.settings.id, sequences_of(model.settings, self._device)
        log.info(
            "calibrating %s on %d backends (%s) at %d sequences; this is done once",
            *(name, len(model.rivals), ", ".join(model.rivals), sequences),
        )
        left_s = self._runtime.calibrate_limit_s
        is_final = True
        outcomes: list[Outcome] = []
        for position, backend in enumerate(model.rivals):
            short = lacks_memory(backend, model.settings, model.source, room_here(self._device))
            if short is not None:
                is_final = False  # there may be more at another time
                outcomes.append(Outcome(backend=backend, reason=short))
                continue
            begun = self._clock()
            limits = Limits(OPEN_S, max(1.0, left_s / (len(model.rivals) - position)))
            request = self._request(model, backend, sequences, outcomes)
            outcomes.append(self._run(request, limits, self._stop))
            left_s -= self._clock() - begun
            log.info("calibrating %s: %s", name, outcomes[-1].told())
        verdict = decide(outcomes, sequences, is_final=is_final)
        is_kept = self._results.put(key, verdict)
        told = verdict.backend or f"none could be measured, by preference {model.backend}"
        kept = "; remembered" if is_kept and verdict.is_final else "; measured again at the next start"
        log.info("calibrated %s: %s: %s%s", name, verdict.told(), told, kept)
        return verdict

    def _request(self, model: PlannedModel, backend: str, sequences: int, before: Sequence[Outcome]) -> Request:
        best = max((outcome.figures.score for outcome in before if outcome.figures is not None), default=0.0)
        return Request(
            backend=backend,
            spec=spec_document(runner_spec_of(model, self._runtime.kv_cpu_pages)),
            sequences=sequences,
            steps=self._effort.steps,
            seconds=self._effort.seconds,
            floor=best * (1 - TIE),
            parent=os.getpid(),
        )
