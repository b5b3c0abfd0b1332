"""One look at a server: its metrics and its models."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ops.client.client import Client
from ops.errors import Failure

_PREFIX = "inferflux_"


class Sample(NamedTuple):
    """`name` without the prefix that all have."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Reading:
    """`at` is monotonic, `time` Unix time. `missing` says what the key may not see, empty for nothing."""

    at: float
    time: float
    models: list[dict[str, Any]]
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    missing: str = ""

    def of(self, name: str) -> Iterator[Sample]:
        return iter(self.samples.get(name, ()))


def read(client: Client) -> Reading:
    """Raises Failure when nothing answers, or the key opens nothing."""
    models = client.get("/v1/models")["data"]
    answer = client.probe("/metrics")
    at, now = time.monotonic(), time.time()
    if answer.status_code == 403:
        return Reading(at, now, models, missing="the key does not open /metrics: it needs the scope read")
    if not answer.is_success:
        raise Failure(f"/metrics answers with status {answer.status_code}")
    return Reading(at, now, models, parse(answer.text))


def parse(text: str) -> dict[str, list[Sample]]:
    """Samples of ours by name. Raises Failure on what is not the Prometheus text format."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, list[Sample]] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.startswith(_PREFIX):
                    name = sample.name.removeprefix(_PREFIX)
                    found.setdefault(name, []).append(Sample(name, sample.labels, sample.value))
    except ValueError as error:
        raise Failure(f"/metrics cannot be read: {error}") from None
    return found
