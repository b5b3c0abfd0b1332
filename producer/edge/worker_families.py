"""Merging the metrics of workers into the edge's own: same family, one block, label `worker`. Pure."""

from collections.abc import Iterable, Iterator, Mapping

import structlog
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

_log = structlog.stdlib.get_logger("inferflux.edge.metrics")


def merge_exposition(own: bytes, workers: Mapping[str, str]) -> bytes:
    """The edge's text with the families of `workers` (text by worker id). Text that does not parse is left out."""
    families: dict[str, Metric] = {}
    _add(families, text_string_to_metric_families(own.decode()), None)
    for worker, text in workers.items():
        try:
            parsed = list(text_string_to_metric_families(text))
        except ValueError as error:
            _log.warning("metrics of a worker do not parse", worker=worker, error=str(error))
            continue
        _add(families, parsed, worker)
    registry = CollectorRegistry()
    registry.register(_Merged(families))
    return generate_latest(registry)


def _add(families: dict[str, Metric], parsed: Iterable[Metric], worker: str | None) -> None:
    for family in parsed:
        merged = families.get(family.name)
        if merged is None:
            merged = families[family.name] = Metric(family.name, family.documentation, family.type, family.unit)
        for sample in family.samples:
            labels = dict(sample.labels) if worker is None else {**sample.labels, "worker": worker}
            merged.samples.append(sample._replace(labels=labels))


class _Merged(Collector):
    def __init__(self, families: Mapping[str, Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families.values())
