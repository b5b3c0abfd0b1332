import pytest

from producer.autoscale.facts import ClassFacts, Facts
from producer.autoscale.need import Load, Need, Reason, workers_needed
from producer.autoscale.rates import Rates
from producer.autoscale.scaler import Scaler
from producer.autoscale.steadying import Steadying
from producer.config import AutoscaleConfig
from schemas.requests import PriorityClass

IDLE = Load(0, 2.0, 0, 0, 0, 0, 0, 1, 4.0)
NORMAL, BATCH = PriorityClass.NORMAL, PriorityClass.BATCH


@pytest.mark.parametrize(
    ("load", "need"),
    [
        (IDLE, Need(0, Reason.NOTHING)),
        # Ten a second, two seconds each: twenty slots, and room.
        (IDLE._replace(arrivals_per_s=10), Need(6, Reason.ARRIVALS)),
        # Those are as many as may wait at that rate.
        (IDLE._replace(arrivals_per_s=10, waiting=50), Need(6, Reason.ARRIVALS)),
        # A hundred within five seconds, two seconds each.
        (IDLE._replace(waiting=100), Need(10, Reason.BACKLOG)),
        (IDLE._replace(waiting_batch=100), Need(1, Reason.BACKLOG)),
        # No more than everything at once, however long each takes.
        (IDLE._replace(waiting=100, service_s=600), Need(25, Reason.BACKLOG)),
        (IDLE._replace(running=9), Need(3, Reason.IN_FLIGHT)),
        (IDLE._replace(refused=5), Need(1, Reason.REFUSED)),
        # The rates say one; somebody waits too long all the same.
        (IDLE._replace(waiting=3, running=8, workers=2, oldest_age_s=6), Need(3, Reason.AGE)),
        (IDLE._replace(waiting=3, running=8, workers=3, oldest_age_s=6), Need(3, Reason.AGE)),
        (IDLE._replace(slots_per_worker=None, waiting=100), Need(1, Reason.BACKLOG)),
        (IDLE._replace(slots_per_worker=None, refused=100), Need(1, Reason.REFUSED)),
        (IDLE._replace(slots_per_worker=None), Need(0, Reason.NOTHING)),
    ],
)
def test_what_a_load_needs(load: Load, need: Need) -> None:
    assert workers_needed(load, target_wait_s=5.0) == need


def facts(at: float, *, waiting: int = 0, running: int = 0, delivered: int = 0, batch: int = 0, **more: int) -> Facts:
    classes = {NORMAL: ClassFacts(waiting, running, delivered), BATCH: ClassFacts(batch)}
    return Facts(at, classes, **more)


def test_rates_come_from_counters_whatever_the_steps() -> None:
    for step in (1, 5, 20):
        rates = Rates()
        for at in range(0, 601, step):
            rates.note(facts(at, running=6, delivered=3 * at, batch=at * 100))
        assert rates.arrivals_per_s == pytest.approx(3)
        assert rates.service_s == pytest.approx(2, rel=0.02)


def test_a_queue_that_was_made_anew_is_no_flood_and_no_pause_forgets_the_service_time() -> None:
    rates = Rates()
    for at in range(0, 101, 5):
        rates.note(facts(at, running=6, delivered=3 * at))
    rates.note(facts(105, delivered=2))
    assert 0 <= rates.arrivals_per_s <= 3
    known = rates.service_s
    for at in range(110, 3000, 5):
        rates.note(facts(at, delivered=2))
    assert (rates.arrivals_per_s, rates.service_s) == (pytest.approx(0, abs=1e-6), pytest.approx(known, rel=0.2))


def test_a_burst_at_the_first_look_is_no_flood() -> None:
    rates = Rates()
    rates.note(facts(0))
    rates.note(facts(0.1, waiting=24))
    assert rates.arrivals_per_s == pytest.approx(2.4)


def test_what_does_not_end_is_known_to_take_long() -> None:
    rates = Rates()
    rates.note(facts(0, running=1, delivered=1))
    rates.note(facts(100, running=1, delivered=1))
    assert rates.service_s > 90


def test_up_at_once_and_down_after_the_window() -> None:
    steadying = Steadying(60)
    assert [steadying.note(at, needed) for at, needed in [(0, 1), (5, 8), (10, 3), (60, 2), (65, 2), (66, 2)]] == [
        1, 8, 8, 8, 8, 3,
    ]  # fmt: skip
    assert steadying.note(200, 1) == 1
    assert not Steadying(0).is_young(0) or Steadying(0).note(0, 2) == 2


def test_bounds_and_reasons() -> None:
    scaler = Scaler(AutoscaleConfig(min_workers=2, max_workers=3, stabilization_s=10))
    assert scaler.observe(facts(0, workers=1, slots=1))[:2] == (2, Reason.MIN_WORKERS)
    assert scaler.observe(facts(1, waiting=1000, workers=1, slots=1))[:2] == (3, Reason.MAX_WORKERS)
    assert scaler.observe(facts(2, workers=3, slots=3))[:2] == (3, Reason.MAX_WORKERS)


def test_without_an_idle_time_nothing_sleeps_and_with_one_it_wakes_at_once() -> None:
    awake = Scaler(AutoscaleConfig())
    assert awake.observe(facts(0))[:2] == (1, Reason.MIN_WORKERS)
    sleepy = Scaler(AutoscaleConfig(min_workers=2, idle_to_zero_s=60, stabilization_s=600))
    assert sleepy.observe(facts(0))[:2] == (0, Reason.IDLE)
    assert sleepy.observe(facts(5, batch=1))[:2] == (2, Reason.MIN_WORKERS)
    assert sleepy.observe(facts(64, workers=2, slots=2)).desired == 2
    assert sleepy.observe(facts(65, workers=2, slots=2))[:2] == (0, Reason.IDLE)
    # A worker that is there keeps an edge that has just started from putting it to sleep.
    assert Scaler(AutoscaleConfig(idle_to_zero_s=60)).observe(facts(0, workers=1, slots=1)).desired == 1
