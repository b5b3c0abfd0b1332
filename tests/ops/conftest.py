"""One running InferFlux for all tests here that leave it running."""

from collections.abc import Iterator

import pytest

from tests.system.stack import Stack, running


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("up") / "data", "--backend", "echo") as stack:
        yield stack
