"""Metrics: what a scrape shows, the fleet's queue, workers' families merged in."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from producer.edge.demand import Demand
from producer.edge.exposition import scrape_workers, worker_targets
from producer.edge.worker_families import merge_exposition
from producer.metrics import EdgeMetrics
from schemas.requests import Endpoint, PriorityClass
from tests.conftest import Broker
from tests.producer.conftest import CONFIG, READ_KEY, chat, put_model, running_edge, until_served
from tests.producer.scripted_worker import ScriptedWorker

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples_of(text: str) -> Samples:
    """Value by name and sorted labels. Fails on text that names a family twice."""
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def worker_text(tokens: int) -> str:
    registry = CollectorRegistry()
    Counter("inferflux_completion_tokens", "Tokens.", ["model"], registry=registry).labels("echo").inc(tokens)
    Gauge("inferflux_batch_size", "Sequences.", registry=registry).set(4)
    Histogram("inferflux_step_seconds", "Step.", registry=registry, buckets=(1, 2)).observe(0.5)
    return generate_latest(registry).decode()


@asynccontextmanager
async def http_server(text: str | None) -> AsyncIterator[str]:
    """Answers every call with `text`; None never answers. Each connection lasts until its client closes it."""
    open_calls: set[asyncio.Event] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        done = asyncio.Event()
        open_calls.add(done)
        if text is not None:
            body = text.encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await reader.read()
        writer.close()
        done.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics"
        for done in open_calls:
            await done.wait()


def test_workers_families_are_merged_under_their_label() -> None:
    registry = CollectorRegistry()
    metrics = EdgeMetrics(registry)
    metrics.queue("echo", PriorityClass.HIGH, 3, 2, 500, 1.5)
    merged = samples_of(
        merge_exposition(generate_latest(registry), {"w1": worker_text(5), "w2": worker_text(7)}).decode()
    )
    assert merged["inferflux_completion_tokens_total", (("model", "echo"), ("worker", "w1"))] == 5
    assert merged["inferflux_completion_tokens_total", (("model", "echo"), ("worker", "w2"))] == 7
    assert merged["inferflux_batch_size", (("worker", "w2"),)] == 4
    assert merged["inferflux_step_seconds_count", (("worker", "w1"),)] == 1
    assert merged["inferflux_queue_depth", (("model", "echo"), ("priority", "high"))] == 3
    assert merged["inferflux_queue_in_hand", (("model", "echo"), ("priority", "high"))] == 2


def test_openmetrics_texts_are_merged_as_such() -> None:
    def text(tokens: int) -> str:
        registry = CollectorRegistry()
        Counter("inferflux_completion_tokens", "Tokens.", ["model"], registry=registry).labels('a"} b').inc(tokens)
        histogram = Histogram("inferflux_step_seconds", "Step.", registry=registry, buckets=(1, 2))
        histogram.observe(0.5, {"trace_id": f"{tokens}"})
        return openmetrics.generate_latest(registry).decode()

    merged = merge_exposition(text(1).encode(), {'w"1\\': text(2), "w2": text(3)}).decode()
    families = {family.name: family for family in parse_openmetrics(merged)}
    counted = {
        (each.labels.get("worker"), each.labels["model"]): each.value
        for each in families["inferflux_completion_tokens"].samples
        if each.name.endswith("_total")
    }
    assert counted == {(None, 'a"} b'): 1, ('w"1\\', 'a"} b'): 2, ("w2", 'a"} b'): 3}
    buckets = families["inferflux_step_seconds"].samples
    assert {(each.labels.get("worker"), each.exemplar.labels["trace_id"]) for each in buckets if each.exemplar} == {
        (None, "1"),
        ('w"1\\', "2"),
        ("w2", "3"),
    }
    assert merged.count("# EOF") == 1 and merged.endswith("# EOF\n")


def test_a_model_that_is_gone_is_shown_no_longer() -> None:
    registry = CollectorRegistry()
    metrics = EdgeMetrics(registry)
    for model in ("stays", "goes"):
        metrics.queue(model, PriorityClass.LOW, 3, 0, 500, 1.5)
        metrics.workers(model, 1)
        metrics.ended(Endpoint.CHAT, model, "ok", 1.0)
    metrics.keep_models({"stays"})
    fleet = {
        (name, dict(labels)["model"])
        for name, labels in samples_of(generate_latest(registry).decode())
        if name.startswith(("inferflux_queue_depth", "inferflux_workers", "inferflux_queue_oldest"))
    }
    assert {model for _, model in fleet} == {"stays"}
    assert samples_of(generate_latest(registry).decode())[
        "inferflux_requests_total", (("code", "ok"), ("endpoint", "chat.completions"), ("model", "goes"))
    ]


def test_what_does_not_parse_is_left_out() -> None:
    assert merge_exposition(b"a 1\n", {"w1": "this is { no metrics"}) == merge_exposition(b"a 1\n", {"w2": ""})


def test_the_list_of_workers_is_read_from_the_run_file(tmp_path: Path) -> None:
    run = tmp_path / "run.json"
    assert worker_targets(None) == {}
    assert worker_targets(run) == {}
    for text in ("", "{", "[]", "5", '{"workers": 5}', '{"workers": [{}]}', '{"workers": [5]}'):
        run.write_text(text)
        assert worker_targets(run) == {}
    run.write_text(json.dumps({"workers": [{"id": "w1", "metrics": "http://x"}, {"id": "w2", "metrics": None}]}))
    assert worker_targets(run) == {"w1": "http://x"}


async def test_workers_that_do_not_answer_are_left_out_in_time(tmp_path: Path) -> None:
    async with http_server("a 1\n") as good, http_server(None) as slow:
        workers = [
            {"id": "good", "metrics": good},
            {"id": "slow", "metrics": slow},
            {"id": "gone", "metrics": "http://127.0.0.1:1/metrics"},
            {"id": "nonsense", "metrics": "nonsense"},
        ]
        (tmp_path / "run.json").write_text(json.dumps({"workers": workers}))
        assert await scrape_workers(tmp_path / "run.json", 0.3) == {"good": "a 1\n"}


@pytest.mark.nats
async def test_a_scrape_shows_requests_queue_and_workers(
    broker: Broker, worker: ScriptedWorker, tmp_path: Path
) -> None:
    run_file = tmp_path / "run.json"
    async with (
        http_server(worker_text(9)) as url,
        running_edge(broker, replace(CONFIG, run_file=run_file)) as edge,
    ):
        await until_served(edge)
        run_file.write_text(json.dumps({"workers": [{"id": "w1", "metrics": url}]}))
        await edge.post(chat("a b c", stream=True))
        await edge.post(chat())
        await edge.post(chat() | {"model": "x" * 50})
        await edge.post(chat(n=2))
        await edge.post(chat(), authorization="Bearer wrong")
        answer = await edge.client.get("/metrics", headers={"authorization": f"Bearer {READ_KEY}"})
        samples = samples_of(answer.text)
        async with httpx2.AsyncClient(trust_env=False) as scraper:
            scraped = samples_of((await scraper.get(edge.address.metrics_url)).text)
    chat_labels = ("endpoint", "chat.completions")
    assert samples["inferflux_requests_total", (("code", "ok"), chat_labels, ("model", "echo"))] == 2
    unknown = (("code", "model_not_found"), chat_labels, ("model", "unknown"))
    assert samples["inferflux_requests_total", unknown] == 1
    assert not any("xxxxx" in str(key) for key in samples)
    refused = (("code", "unsupported_parameter"), chat_labels, ("model", "unknown"))
    assert samples["inferflux_requests_total", refused] == 1
    assert samples["inferflux_auth_failures_total", (("reason", "invalid_api_key"),)] == 1
    assert samples["inferflux_stream_tokens_total", (("model", "echo"),)] == 4
    model_priority = (("model", "echo"), ("priority", "normal"))
    assert samples["inferflux_time_to_first_token_seconds_count", model_priority] == 2
    assert samples["inferflux_queue_wait_seconds_count", model_priority] == 2
    assert samples["inferflux_request_duration_seconds_count", (chat_labels, ("model", "echo"))] == 2
    assert samples["inferflux_queue_depth", model_priority] == 0
    assert samples["inferflux_queue_oldest_age_seconds", model_priority] == 0
    assert samples["inferflux_completion_tokens_total", (("model", "echo"), ("worker", "w1"))] == 9
    assert samples["inferflux_workers_desired", (("model", "echo"),)] == 1
    assert samples["inferflux_rate_limited_total", ()] == samples["inferflux_guardrail_blocks_total", ()] == 0
    assert set(samples) <= set(scraped)


@pytest.mark.nats
async def test_a_waiting_queue_is_seen_with_its_age(broker: Broker) -> None:
    await put_model(broker, no_worker="queue")
    async with running_edge(broker) as edge:
        call = asyncio.create_task(edge.post(chat(timeout=2)))
        labels = (("model", "echo"), ("priority", "normal"))
        while True:
            answer = await edge.client.get("/metrics", headers={"authorization": f"Bearer {READ_KEY}"})
            samples = samples_of(answer.text)
            if samples["inferflux_queue_depth", labels] == 1:
                break
            await asyncio.sleep(0.05)
        assert samples["inferflux_queue_oldest_age_seconds", labels] >= 0
        assert samples["inferflux_workers_desired", (("model", "echo"),)] == 1
        assert (await call).status_code == 504


def test_demand_counts_the_last_minute() -> None:
    now = [0.0]
    demand = Demand("e1", lambda: now[0])
    demand.note_refused("m")
    now[0] = 30
    demand.note_refused("m")
    assert (demand.num_refused("m"), demand.num_refused("other")) == (2, 0)
    now[0] = 61
    assert demand.num_refused("m") == 1


def test_demand_counts_what_other_edges_say_while_they_say_it() -> None:
    now = [0.0]
    demand = Demand("e1", lambda: now[0])
    demand.note_refused("m")
    assert demand.news.is_set()
    demand.news.clear()
    demand.note_refused("m")
    assert not demand.news.is_set()
    demand.heard("e2", {"m": 3, "other": 1})
    demand.heard("e1", {"m": 50})
    assert (demand.num_refused("m"), demand.num_refused("other"), demand.own()) == (5, 1, {"m": 2})
    now[0] = 16
    assert demand.num_refused("m") == 2
    now[0] = 61
    assert (demand.num_refused("m"), demand.own()) == (0, {})


def test_a_streams_gaps_are_means_over_what_came_at_once() -> None:
    registry = CollectorRegistry()
    stream = EdgeMetrics(registry).for_stream("m")
    stream.note(1, 10.0)
    stream.note(1, 10.5)
    stream.note(2, 10.04)
    stream.note(3, 11.0)
    samples = samples_of(generate_latest(registry).decode())
    assert samples["inferflux_stream_tokens_total", (("model", "m"),)] == 3
    assert samples["inferflux_inter_token_seconds_count", (("model", "m"),)] == 1
    assert samples["inferflux_inter_token_seconds_sum", (("model", "m"),)] == pytest.approx(0.5)
