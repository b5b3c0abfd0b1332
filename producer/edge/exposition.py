"""What a scrape of the edge shows: its own metrics, the fleet's queue, and under `up` its workers' metrics."""

import asyncio
import json
from pathlib import Path

import httpx2
import structlog
from prometheus_client.exposition import generate_latest

from producer.edge.retry_after import Line
from producer.edge.services import Services
from producer.edge.worker_families import merge_exposition
from schemas.control import ModelCard
from schemas.errors import ServingError
from schemas.requests import PriorityClass

_log = structlog.stdlib.get_logger("inferflux.edge.metrics")


async def exposition(services: Services) -> bytes:
    """In the Prometheus text format. Takes at most about the scrape timeout; what does not answer is left out."""
    timeout_s = services.config.metrics.scrape_timeout_s
    _, scraped = await asyncio.gather(
        _refresh_queue(services, timeout_s), scrape_workers(services.config.run_file, timeout_s)
    )
    services.metrics.live_calls.set(len(services.calls))
    own = generate_latest(services.metrics.registry)
    return merge_exposition(own, scraped) if scraped else own


async def _refresh_queue(services: Services, timeout_s: float) -> None:
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
    await services.scaling.hint(card.id)


async def scrape_workers(run_file: Path | None, timeout_s: float) -> dict[str, str]:
    """Metrics text of the workers listed in `run_file`, by worker id; without those that do not answer in time."""
    targets = worker_targets(run_file)
    if not targets:
        return {}
    async with httpx2.AsyncClient(timeout=timeout_s, trust_env=False) as client:
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
