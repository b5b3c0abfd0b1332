"""One stack for all that is looked at from outside: its metrics, its traces, its log."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.otlp import Collector, collector
from tests.system.stack import Stack, echo_config


@dataclass(frozen=True)
class Observed:
    """A stack of an edge and two workers whose spans the collector gets."""

    stack: Stack
    collector: Collector

    def log(self, **facts: object) -> list[dict[str, Any]]:
        """The log's lines of which all this is true; they come a moment after what they tell."""
        whole, _, _ = self.stack.log_path.read_text().rpartition("\n")
        lines = [line for line in whole.splitlines() if line.startswith("{")]
        return [line for line in map(json.loads, lines) if facts.items() <= line.items()]


@pytest.fixture(scope="session")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    folder = tmp_path_factory.mktemp("observed")
    with collector() as received:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": received.url, "OTEL_SERVICE_NAME": "llm", "INFERFLUX_LOG_FORMAT": "json"}
        config = echo_config(folder, "echo:random?rate=100")
        stack = Stack(folder / "data", "--config", str(config), "--workers", "2", env=env)
        try:
            yield Observed(stack.start(), received)
        finally:
            stack.stop()
