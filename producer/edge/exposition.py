"""What a scrape of the edge shows: its own metrics, the fleet's queue, and under `up` its workers' metrics."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import httpx2
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from starlette.responses import Response

from producer.edge.retry_after import Line
from producer.edge.services import Services
from producer.edge.worker_families import merge_exposition
from schemas.control import ModelCard
from schemas.errors import ServingError
from schemas.requests import PriorityClass


class _Format(NamedTuple):
    generate: Callable[[CollectorRegistry], bytes]
    content_type: str


_PLAIN = _Format(generate_latest, CONTENT_TYPE_PLAIN_0_0_4)
_OPENMETRICS = _Format(openmetrics.generate_latest, openmetrics.CONTENT_TYPE_LATEST)
_log = structlog.stdlib.get_logger("inferflux.edge.metrics")


async def exposition(services: Services, accept: str) -> Response:
    """In the format that `accept` asks for: OpenMetrics, which has trace ids as exemplars, or the Prometheus text.

    Takes at most about the scrape timeout; what does not answer is left out.
    """
    form = _OPENMETRICS if "application/openmetrics-text" in accept else _PLAIN
    timeout_s = services.config.metrics.scrape_timeout_s
    _, scraped = await asyncio.gather(
        _refresh_queue(services, timeout_s), scrape_workers(services.config.run_file, timeout_s, form.content_type)
    )
    services.metrics.live_calls.set(len(services.calls))
    services.metrics.broker_up.set(services.is_reachable)
    own = form.generate(services.metrics.registry)
    return Response(merge_exposition(own, scraped) if scraped else own, media_type=form.content_type)


async def _refresh_queue(services: Services, timeout_s: float) -> None:
    services.metrics.keep_models(services.models.cards)
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.gather(*(_refresh_model(services, card) for card in list(services.models.cards.values())))
    except (TimeoutError, ServingError) as error:
        _log.warning("queue metrics are old", error=str(error) or "timeout")


async def _refresh_model(services: Services, card: ModelCard) -> None:
    for priority in PriorityClass:
        depth = await services.queue.depth(card.id, priority)
        age_s = await services.queue.oldest_age_s(card.id, priority)
        tokens = services.waiting.tokens(Line(card.id, priority))
        services.metrics.queue(card.id, priority, depth.waiting, depth.running, tokens, age_s)
    services.metrics.workers(card.id, len(services.models.serving(card.id)))
    await services.scaling.hint(card.id)


async def scrape_workers(run_file: Path | None, timeout_s: float, accept: str = "text/plain") -> dict[str, str]:
    """Metrics text of the workers listed in `run_file`, by worker id; without those that do not answer in time."""
    targets = worker_targets(run_file)
    if not targets:
        return {}
    # To read the authorities of this machine takes longer than all the rest, and the ports speak no TLS.
    async with httpx2.AsyncClient(
        timeout=timeout_s, trust_env=False, verify=False, headers={"accept": accept}
    ) as client:
        texts = await asyncio.gather(*(_scrape(client, url, timeout_s) for url in targets.values()))
    return {worker: text for worker, text in zip(targets, texts, strict=True) if text is not None}


def worker_targets(run_file: Path | None) -> dict[str, str]:
    """Metrics URL by worker id. A missing or half-written file lists nobody."""
    if run_file is None:
        return {}
    try:
        workers = json.loads(run_file.read_text()).get("workers", [])
        return {str(worker["id"]): str(worker["metrics"]) for worker in workers if worker.get("metrics")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


async def _scrape(client: httpx2.AsyncClient, url: str, timeout_s: float) -> str | None:
    try:
        async with asyncio.timeout(timeout_s):
            answer = await client.get(url)
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
        _log.warning("worker not scraped", url=url, error=str(error) or "timeout")
        return None
    return answer.text if answer.status_code == 200 else None
