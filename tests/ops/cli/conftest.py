"""One server with a quick model and one that takes for ever, and `inferctl` for it."""

import json
from collections.abc import Iterator

import pytest

from tests.ops.cli.inferctl import Inferctl, running_inferctl
from tests.system.stack import Stack, running

# One token a second: an answer of some hundred characters is under way as long as any test lasts.
MODELS = {
    "echo": {"backend": "echo", "source": "echo:repeat?rate=2000", "default": True, "aliases": ["quick"]},
    "slow": {"backend": "echo", "source": "echo:repeat?rate=1"},
}


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("cli")
    config = folder / "server.yaml"
    config.write_text(json.dumps({"models": MODELS}))
    with running(folder / "data", "--config", str(config)) as started:
        yield started


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, stack: Stack) -> Iterator[Inferctl]:
    with running_inferctl(tmp_path_factory.mktemp("user"), stack) as inferctl:
        yield inferctl
