"""One running InferFlux for all tests here that leave it running."""

from collections.abc import Iterator

import pytest

from tests.support.http_server import serve
from tests.support.secrets import find_leaks_in_logs
from tests.system.stack import Stack, running

__all__ = ["serve"]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("up") / "data", "--backend", "echo") as stack:
        yield stack


@pytest.fixture(scope="session", autouse=True)
def no_secret_in_any_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Once all tests are done: no key, pepper or login stands in any log that a process of theirs wrote."""
    yield
    assert find_leaks_in_logs(tmp_path_factory.getbasetemp()) == []
