"""The hint for one model: need, steadied, within bounds, and none at all after a long idle time."""

from typing import NamedTuple

from producer.autoscale.facts import Facts
from producer.autoscale.need import Load, Need, Reason, workers_needed
from producer.autoscale.rates import Rates
from producer.autoscale.steadying import Steadying
from producer.config import AutoscaleConfig

# The span over which refused calls are counted.
REFUSED_WINDOW_S = 60.0


class Hint(NamedTuple):
    """What a model should have, why, and what it was computed from."""

    desired: int
    reason: Reason
    load: Load
    facts: Facts


class Scaler:
    """One for each model. Fed with the same facts, every edge says the same, whatever it saw of the calls itself.

    An edge that has started a moment ago knows no past: for one window it does not ask for fewer workers than there
    are. A model that has no worker, and for which it has seen no demand, it leaves asleep.
    """

    def __init__(self, config: AutoscaleConfig) -> None:
        self._config = config
        self._rates = Rates()
        self._steadying = Steadying(config.stabilization_s)
        self._slots_per_worker: float | None = None
        self._demand_at: float | None = None

    def observe(self, facts: Facts) -> Hint:
        """Take in the facts of this moment. Called every few seconds; how often changes no rate."""
        self._rates.note(facts)
        if facts.workers and facts.slots:
            self._slots_per_worker = facts.slots / facts.workers
        load = self._load(facts)
        if self._is_idle(facts):
            self._steadying.forget()
            return Hint(0, Reason.IDLE, load, facts)
        need = workers_needed(load, self._config.target_queue_wait_s)
        return Hint(*self._bounded(self._steady(need, facts)), load, facts)

    def _load(self, facts: Facts) -> Load:
        return Load(
            arrivals_per_s=self._rates.arrivals_per_s + facts.refused / REFUSED_WINDOW_S,
            service_s=self._rates.service_s,
            waiting=facts.waiting,
            waiting_batch=facts.waiting_batch,
            running=facts.running,
            refused=facts.refused,
            oldest_age_s=facts.oldest_age_s,
            workers=facts.workers,
            slots_per_worker=self._slots_per_worker,
        )

    def _is_idle(self, facts: Facts) -> bool:
        """Whether nothing has been asked for as long as the settings say; without that setting never."""
        if facts.has_demand or (self._demand_at is None and facts.workers):
            self._demand_at = facts.at
        idle_s = self._config.idle_to_zero_s
        if idle_s is None:
            return False
        return self._demand_at is None or facts.at - self._demand_at >= idle_s

    def _steady(self, need: Need, facts: Facts) -> Need:
        highest = self._steadying.note(facts.at, need.workers)
        if self._steadying.is_young(facts.at) and facts.workers > highest:
            return Need(facts.workers, Reason.WARMING_UP)
        return Need(highest, Reason.STABILIZING) if highest > need.workers else need

    def _bounded(self, need: Need) -> Need:
        if need.workers > self._config.max_workers:
            return Need(self._config.max_workers, Reason.MAX_WORKERS)
        if need.workers < self._config.min_workers:
            return Need(self._config.min_workers, Reason.MIN_WORKERS)
        return need
