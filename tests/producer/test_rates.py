"""How fast places free up, as an edge measures it."""

import pytest

from producer.edge.rates import ServiceRates
from schemas.requests import PriorityClass

NORMAL, HIGH, LOW = PriorityClass.NORMAL, PriorityClass.HIGH, PriorityClass.LOW


def test_rates_follow_what_is_measured() -> None:
    rates = ServiceRates(lambda model: 4)
    assert rates.time_for("m", NORMAL, 1) == pytest.approx(0.25)
    for _ in range(100):
        rates.note("m", 2.0)
    assert rates.places_per_s("m") == pytest.approx(2.0)
    assert rates.time_for("m", NORMAL, 10) == pytest.approx(5.0)
    assert rates.time_for("m", NORMAL, 0) == rates.time_for("m", NORMAL, 1)
    assert ServiceRates(lambda model: 0).time_for("m", NORMAL, 1) == pytest.approx(1.0)


def test_until_something_has_ended_the_age_of_what_runs_tells_most() -> None:
    ages = [10.0, 20.0]
    rates = ServiceRates(lambda model: 2, lambda model: ages)
    assert rates.time_for("m", NORMAL, 1) == pytest.approx(15.0)
    ages[:] = [0.1]
    assert rates.time_for("m", NORMAL, 1) == pytest.approx(0.5)
    rates.note("m", 4.0)
    assert rates.time_for("m", NORMAL, 1) == pytest.approx(2.0)


def test_a_class_gets_what_the_ones_above_leave() -> None:
    now = [0.0]
    rates = ServiceRates(lambda model: 1, clock=lambda: now[0])
    rates.note("m", 1.0)
    for number in range(400):
        rates.note_start("m", HIGH if number % 4 else LOW)
        now[0] += 1.0
    assert rates.class_places_per_s("m", HIGH) == pytest.approx(1.0)
    assert rates.class_places_per_s("m", LOW) == pytest.approx(0.25, abs=0.05)
    # Nobody takes anything from the classes in between but those above them.
    assert rates.class_places_per_s("m", NORMAL) == pytest.approx(0.25, abs=0.05)
    assert rates.time_for("m", LOW, 1, num_above=5) == pytest.approx(9.0, abs=1.0)
    now[0] += 600
    rates.note_start("m", LOW)
    assert rates.class_places_per_s("m", LOW) == pytest.approx(1.0)


def test_a_class_that_gets_nothing_is_not_told_for_ever() -> None:
    rates = ServiceRates(lambda model: 1, clock=lambda: 0.0)
    rates.note("m", 1.0)
    for _ in range(10_000):
        rates.note_start("m", HIGH)
    assert rates.time_for("m", LOW, 1) == pytest.approx(50.0)
