from collections.abc import Callable

import pytest

Report = Callable[[str, object], None]


@pytest.fixture
def report(record_property: Report) -> Report:
    """Records a measured figure in the test's report, and shows it under `-s`. Figures are told, not asserted."""

    def tell(name: str, value: object) -> None:
        record_property(name, value)
        print(f"\n{name}: {value}", end="", flush=True)

    return tell
