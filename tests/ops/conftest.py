"""One running InferFlux for all tests here that leave it running."""

from collections.abc import Iterator

import pytest

from tests.system.stack import Stack, running, until


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running(tmp_path_factory.mktemp("up") / "data", "--backend", "echo") as stack:
        until_ready_is_printed(stack)
        yield stack


def until_ready_is_printed(stack: Stack) -> None:
    until(lambda: "\ntry " in stack.log_path.read_text(), "the ready block")
