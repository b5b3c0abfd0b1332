from collections.abc import Callable, Iterator

import pytest

from tests.support.secrets import find_leaks_in_logs

Report = Callable[[str, object], None]


@pytest.fixture
def report(record_property: Report) -> Report:
    """Records a measured figure in the test's report, and shows it under `-s`. Figures are told, not asserted."""

    def tell(name: str, value: object) -> None:
        record_property(name, value)
        print(f"\n{name}: {value}", end="", flush=True)

    return tell


@pytest.fixture(scope="session", autouse=True)
def no_secret_in_any_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Once all tests are done: no key, pepper or login stands in any log that a process of theirs wrote."""
    yield
    assert find_leaks_in_logs(tmp_path_factory.getbasetemp()) == []
