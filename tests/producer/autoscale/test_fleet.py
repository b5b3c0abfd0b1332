"""A whole fleet follows its load by the hint alone: fast up, slowly down, to nothing and back."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.autoscale.need import UTILISATION, Reason
from producer.autoscale.scaler import Scaler
from producer.config import AutoscaleConfig
from tests.producer.autoscale.fleet import Fleet
from tests.support.counts import full_or

CONFIG = AutoscaleConfig(stabilization_s=300)


def right_number(rate: float, service_s: float, slots: int) -> int:
    """By Little's law, with room for chance."""
    return max(1, math.ceil(rate * service_s / UTILISATION / slots))


def test_a_step_up_is_followed_at_once_and_a_step_down_slowly() -> None:
    fleet = Fleet(CONFIG, lambda at: 10.0 if 300 <= at < 2100 else 1.0)
    fleet.run(300)
    assert fleet.desired == 1
    fleet.run(30)
    assert fleet.desired >= right_number(10, 2, 4)
    fleet.run(270)
    assert fleet.num_waiting < 10
    fleet.run(1500)
    assert right_number(10, 2, 4) <= fleet.desired <= right_number(10, 2, 4) + 2
    before = fleet.desired
    fleet.run(240)
    assert fleet.desired == before
    fleet.run(600)
    assert fleet.desired in (1, 2)
    # Up, and down: what the start of the workers left behind, and the step. No flapping.
    assert fleet.num_turns() <= 7


def test_to_nothing_after_an_idle_time_and_back_for_one_call() -> None:
    config = AutoscaleConfig(stabilization_s=120, idle_to_zero_s=600)
    fleet = Fleet(config, lambda at: 2.0 if at < 300 or 1500 <= at < 1800 else 0.0)
    fleet.run(330)
    assert fleet.desired >= 1 and fleet.workers >= 1
    fleet.run(500)
    assert (fleet.desired, fleet.workers) == (1, 1)
    fleet.run(200)
    assert (fleet.desired, fleet.workers, fleet.history[-1].hint.reason) == (0, 0, Reason.IDLE)
    fleet.run(1500 - fleet.at + 60)
    assert fleet.desired >= 1
    fleet.run(120)
    assert fleet.workers >= 1 and fleet.num_waiting < 10


def test_calls_that_are_refused_wake_it_too() -> None:
    config = AutoscaleConfig(stabilization_s=120, idle_to_zero_s=600)
    fleet = Fleet(config, lambda at: 0.5 if at > 100 else 0.0, queues=False, workers=0)
    fleet.run(100)
    assert fleet.desired == 0
    fleet.run(30)
    assert fleet.desired == 1 and fleet.history[-1].hint.facts.refused > 0
    fleet.run(120)
    assert fleet.workers >= 1 and fleet.num_served > 0


def test_an_edge_that_starts_amid_the_load_takes_nothing_away() -> None:
    fleet = Fleet(CONFIG, lambda at: 10.0)
    fleet.run(1800)
    before = fleet.desired
    fleet.scalers = [Scaler(CONFIG)]
    restarted = fleet.at
    fleet.run(CONFIG.stabilization_s)
    assert min(seen.hint.desired for seen in fleet.history if seen.at > restarted) >= before - 1
    fleet.run(600)
    assert abs(fleet.desired - right_number(10, 2, 4)) <= 2


def test_two_edges_come_to_say_the_same() -> None:
    fleet = Fleet(CONFIG, lambda at: 6.0)
    fleet.run(900)
    fleet.scalers.append(Scaler(CONFIG))
    fleet.run(900)
    one, other = (scaler.observe(fleet.facts()) for scaler in fleet.scalers)
    assert one.desired == other.desired
    assert one.load.arrivals_per_s == pytest.approx(other.load.arrivals_per_s, rel=0.01)


@settings(max_examples=full_or(200, reduced=12), deadline=None)
@given(
    rate=st.floats(0.2, 20),
    service_s=st.floats(0.2, 20),
    slots=st.integers(1, 16),
    start_s=st.floats(0, 120),
    seed=st.integers(0, 1 << 16),
)
def test_any_steady_load_is_served_without_flapping(
    rate: float, service_s: float, slots: int, start_s: float, seed: int
) -> None:
    config = AutoscaleConfig(stabilization_s=300, max_workers=1000)
    fleet = Fleet(config, lambda at: rate, service_s=service_s, slots=slots, start_s=start_s, seed=seed)
    fleet.run(1800)
    expected = right_number(rate, service_s, slots)
    fleet.run(1200)
    settled = [seen.hint.desired for seen in fleet.history if seen.at > 1800]
    # Chance: what is in the system strays from its mean by its root, a few times over.
    slack = 1 + math.ceil(6 * (math.sqrt(rate * service_s) + 1) / slots)
    assert expected - 1 <= min(settled) and max(settled) <= expected + slack, (expected, min(settled), max(settled))
    assert fleet.num_turns(since=600) <= 16
    waits = [seen.hint.facts.oldest_age_s for seen in fleet.history if seen.at > 1800]
    assert sorted(waits)[len(waits) // 2] <= config.target_queue_wait_s
    ceiling = AutoscaleConfig(max_workers=2)
    limited = Fleet(ceiling, lambda at: rate, service_s=service_s, slots=slots, start_s=start_s, seed=seed)
    limited.run(600)
    assert max(seen.hint.desired for seen in limited.history) <= 2
