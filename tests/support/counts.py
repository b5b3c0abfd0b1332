"""How often a test repeats what it does: reduced counts in `make test`, full ones in `make test-all`."""

import os
from typing import TypeVar

T = TypeVar("T")


def full_or(full: T, *, reduced: T) -> T:
    return full if os.environ.get("INFERFLUX_TEST_COUNTS") == "full" else reduced
