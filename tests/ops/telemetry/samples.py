"""Metrics of real processes, parsed."""

import urllib.request
from dataclasses import dataclass

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from tests.system.stack import KEY

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@dataclass(frozen=True)
class Family:
    """`name` is that of queries, with `_total`. `labels` are those of its samples, but for `le`. `is_passed_on`: every
    sample is of a worker."""

    name: str
    type: str
    help: str
    labels: frozenset[str]
    is_passed_on: bool


class Scrape:
    """What one address showed at one moment."""

    def __init__(self, url: str, *, key: str | None = None, accept: str = "text/plain") -> None:
        request = urllib.request.Request(url, headers={"Accept": accept})
        if key is not None:
            request.add_header("Authorization", f"Bearer {key}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            self.content_type = answer.headers["content-type"]
            text = answer.read().decode()
        parse = openmetrics_families if accept == OPENMETRICS else text_string_to_metric_families
        metrics = list(parse(text))
        self.samples = [sample for metric in metrics for sample in metric.samples]
        self.families = {
            family.name: family
            for family in (
                Family(
                    f"{metric.name}_total" if metric.type == "counter" else metric.name,
                    metric.type,
                    metric.documentation,
                    frozenset(label for sample in metric.samples for label in sample.labels) - {"le"},
                    bool(metric.samples) and all("worker" in sample.labels for sample in metric.samples),
                )
                for metric in metrics
            )
        }
        assert len(self.families) == len(metrics), "a family stands there twice"

    def total(self, name: str, **labels: str) -> float:
        """Sum of the samples of that name with these labels."""
        return sum(
            sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()
        )

    def values(self, label: str) -> set[str]:
        return {sample.labels[label] for sample in self.samples if label in sample.labels}


def scrape_edge(url: str) -> Scrape:
    """The edge's own port, under a key: with its workers."""
    return Scrape(f"{url}/metrics", key=KEY)


def increase(before: Scrape, after: Scrape, name: str, **labels: str) -> float:
    return after.total(name, **labels) - before.total(name, **labels)
