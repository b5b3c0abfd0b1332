"""Every test of the suite, on every runner."""

from collections.abc import Iterator

import pytest

from tests.conformance.cases import CASES, RunnerCase
from tests.conformance.driver import Driver


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> RunnerCase:
    return request.param


@pytest.fixture(scope="module")
def open_drivers() -> Iterator[dict[str, Driver]]:
    """Those whose case says that they stay open, by its name."""
    drivers: dict[str, Driver] = {}
    yield drivers
    for driver in drivers.values():
        driver.runner.close()


@pytest.fixture
def driver(case: RunnerCase, open_drivers: dict[str, Driver]) -> Iterator[Driver]:
    driver = open_drivers.get(case.name)
    if driver is None:
        runner = case.create()
        driver = Driver(runner, runner.open(case.spec))
        if case.stays_open:
            open_drivers[case.name] = driver
    yield driver
    if case.stays_open:
        driver.release_all()
    else:
        driver.runner.close()
