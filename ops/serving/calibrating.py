"""When a start measures: the backends of its models, before anything is served."""

import threading
from collections.abc import Collection, Sequence

from ops.calibration.calibrator import Calibrator
from ops.calibration.results import Results
from ops.errors import CannotStart
from ops.serving.backends import refuse_unused_settings
from ops.serving.machine import this_machine
from ops.serving.plan import PlannedModel, plan_models, planner_of, refuse_mixture
from ops.serving.sharing import share_process
from ops.serving.worker_models import model_settings
from ops.settings.settings import Settings
from ops.supervisor.run_file import read_run_file
from schemas.control import ModelCard


def calibrator_of(settings: Settings, stop: threading.Event) -> Calibrator:
    return Calibrator(settings.runtime, this_machine().device, Results(settings.data_dir), stop)


def calibrate_plan(plan: Sequence[PlannedModel], settings: Settings, stop: threading.Event) -> bool:
    """Measure what the plan leaves open, one model after the other. Whether there was any. Raises Stopped."""
    undecided = [model for model in plan if model.is_open]
    for model in undecided:
        calibrator_of(settings, stop).calibrate(model)
    return bool(undecided)


def plan_process(settings: Settings, only: Collection[str], stop: threading.Event | None) -> tuple[PlannedModel, ...]:
    """The configured models for one process, measured before where speed decides; `stop` None: nothing is measured.
    Raises CannotStart, Stopped."""
    plan = plan_models(settings, only=only)
    if stop is not None and calibrate_plan(plan, settings, stop):
        plan = plan_models(settings, only=only)
    plan = share_process(plan)
    refuse_mixture(plan)
    return plan


def calibrate_cards(cards: Sequence[ModelCard], settings: Settings, stop: threading.Event) -> None:
    """The same for registered models whose files are here. Raises CannotStart for a setting that no chosen backend
    honours, Stopped."""
    planner = planner_of(settings, may_download=False)
    backends = []
    for card in cards:
        try:
            planned = planner.plan(model_settings(card))
            if calibrate_plan([planned], settings, stop):
                planned = planner.plan(planned.settings)
        except CannotStart:
            continue  # its worker says so
        backends.append(planned.backend)
    if len(backends) == len(cards):
        refuse_unused_settings(settings.runtime, backends)


def is_serving(settings: Settings) -> bool:
    """Whether an `up` in the data directory has workers that serve."""
    running = read_run_file(settings.data_dir)
    return running is not None and bool(running.workers)
