"""The README says of every parameter what the code does with it."""

import pytest

from tests.docs.pages import README, read
from tests.docs.parameter_table import KINDS, between_marks, render

WRITE = "run: .venv/bin/python -m tests.docs.parameter_table"


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_is_that_of_the_code(kind: str) -> None:
    place = between_marks(read(README), kind)
    assert place is not None
    assert place[1] == render(KINDS[kind]), WRITE
