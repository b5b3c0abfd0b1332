"""The generated reference pages are what the code says now."""

from pathlib import Path

import pytest

from ops.docs.pages import pages

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", pages())
def test_page_is_fresh(name: str) -> None:
    assert (DOCS / name).read_text() == pages()[name], "run: make docs"
