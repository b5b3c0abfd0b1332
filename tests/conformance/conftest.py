"""Every test of the suite, on every runner."""

from collections.abc import Iterator

import pytest

from tests.conformance.cases import CASES, RunnerCase
from tests.conformance.driver import Driver


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> RunnerCase:
    return request.param


@pytest.fixture
def driver(case: RunnerCase) -> Iterator[Driver]:
    runner = case.create()
    yield Driver(runner, runner.open(case.spec))
    runner.close()
