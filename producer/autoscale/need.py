"""Workers that a model needs at this moment: no memory, no bounds."""

import math
from enum import StrEnum
from typing import NamedTuple

# Busy slots over all slots that arrivals may come to: at 1 the queue would grow without an end.
UTILISATION = 0.85
# A batch may wait this much longer than anything else.
BATCH_WEIGHT = 0.1
# Rounding: a thousandth of a worker is not one.
_CRUMB = 0.001


class Reason(StrEnum):
    """What decided, most of all, how many are desired."""

    NOTHING = "nothing"
    ARRIVALS = "arrivals"
    BACKLOG = "backlog"
    AGE = "age"
    IN_FLIGHT = "in_flight"
    REFUSED = "refused"
    STABILIZING = "stabilizing"
    WARMING_UP = "warming_up"
    MIN_WORKERS = "min_workers"
    MAX_WORKERS = "max_workers"
    IDLE = "idle"


class Load(NamedTuple):
    """What is to be served. `slots_per_worker` None: no worker of the model was ever seen."""

    arrivals_per_s: float
    service_s: float
    waiting: int
    waiting_batch: int
    running: int
    refused: int
    oldest_age_s: float
    workers: int
    slots_per_worker: float | None


class Need(NamedTuple):
    workers: int
    reason: Reason


def workers_needed(load: Load, target_wait_s: float) -> Need:
    """Enough for the arrivals (Little's law), and to begin with what waits too long within `target_wait_s`."""
    has_demand = load.waiting + load.waiting_batch + load.running + load.refused > 0
    if load.slots_per_worker is None:
        # How much one can do is learned from the first.
        first = Reason.REFUSED if load.refused and not load.waiting else Reason.BACKLOG
        return Need(1, first) if has_demand else Need(0, Reason.NOTHING)
    steady = load.arrivals_per_s * load.service_s / UTILISATION
    drain = _excess(load, target_wait_s) * min(1.0, load.service_s / target_wait_s)
    workers = _ceil((steady + drain) / load.slots_per_worker)
    need = Need(workers, Reason.BACKLOG if drain > steady else Reason.ARRIVALS)
    for further in (_first(load, has_demand), _in_flight(load), _late(load, target_wait_s)):
        need = further if further.workers > need.workers else need
    return need if need.workers else Need(0, Reason.NOTHING)


def _excess(load: Load, target_wait_s: float) -> float:
    """What waits beyond those who, at the rate they come, wait no longer than they may."""
    return max(0.0, load.waiting - load.arrivals_per_s * target_wait_s) + BATCH_WEIGHT * load.waiting_batch


def _first(load: Load, has_demand: bool) -> Need:
    return Need(int(has_demand), Reason.REFUSED if load.refused else Reason.BACKLOG)


def _in_flight(load: Load) -> Need:
    """Slots for all that runs, so that nobody has to hand anything back."""
    return Need(_ceil(load.running / (load.slots_per_worker or 1)), Reason.IN_FLIGHT)


def _late(load: Load, target_wait_s: float) -> Need:
    """One more than there are while somebody waits too long, whatever the rates say; never more than have work."""
    if load.waiting == 0 or load.oldest_age_s <= target_wait_s:
        return Need(0, Reason.AGE)
    busy = _ceil((load.waiting + load.running) / (load.slots_per_worker or 1))
    return Need(min(load.workers + 1, busy), Reason.AGE)


def _ceil(workers: float) -> int:
    return math.ceil(workers - _CRUMB)
