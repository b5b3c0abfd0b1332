"""How often a test repeats what it does: reduced counts in `make test`, full ones in `make test-all`."""

import os


def full_or(full: int, *, reduced: int) -> int:
    return full if os.environ.get("INFERFLUX_TEST_COUNTS") == "full" else reduced
