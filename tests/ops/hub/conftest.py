from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ops.hub.hub import Hub, HubConfig
from tests.support.fake_hub import FakeHub


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with FakeHub().running() as hub:
        yield hub


@pytest.fixture
def hub_at(fake_hub: FakeHub, tmp_path: Path) -> Callable[..., Hub]:
    """A hub of ours that asks the fake one and keeps its files under `tmp_path`."""

    def make(**changes: Any) -> Hub:
        return Hub(HubConfig(tmp_path, **{"endpoint": fake_hub.endpoint, "retry_wait_s": 0.01, **changes}))

    return make
