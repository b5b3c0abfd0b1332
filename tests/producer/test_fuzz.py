"""Anything may arrive: the answer is a 4xx error object in time, and a normal call succeeds afterwards."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producer.edge.parameters import parameters_of
from schemas.requests import Endpoint
from tests.conftest import Broker
from tests.producer.conftest import CONFIG, KEY, Edge, chat, running_edge, until_served
from tests.producer.scripted_worker import ScriptedWorker
from tests.producer.test_parameters import ANY_JSON
from tests.support import malformed
from tests.support.counts import full_or
from tests.support.malformed import HEADER_NAMES, HEADER_TEXT, HUGE, MALFORMED, PATHS, assert_refused

pytestmark = pytest.mark.nats

FUZZ = settings(
    max_examples=full_or(1000, reduced=60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
async def edge(broker: Broker, worker: ScriptedWorker) -> AsyncIterator[Edge]:
    config = replace(CONFIG, max_body_bytes=1024 * 1024, body_timeout_s=0.3, drain_timeout_s=1)
    async with running_edge(broker, config) as edge:
        await until_served(edge)
        yield edge
        # Whatever came before, the edge still serves.
        answer = await edge.post(chat("still here"))
        assert answer.json()["choices"][0]["message"]["content"] == "still here"
        assert [run.prompt_text for run in worker.runs][-1] == "still here"


async def exchange(edge: Edge, data: bytes, *, pause_s: float = 0.0) -> tuple[int | None, bytes]:
    """Send bytes as they are and read to the end of the connection: status and body; None when there was no answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.address.port)
    try:
        writer.write(data)
        await writer.drain()
        if pause_s == 0.0 and writer.can_write_eof():
            writer.write_eof()
        async with asyncio.timeout(20):
            answer = await reader.read()
    except ConnectionError:
        answer = b""
    finally:
        writer.transport.abort()
    if not answer:
        return None, b""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


def post(body: bytes, *lines: str, length: int | None = None) -> bytes:
    return malformed.post(body, *lines, key=KEY, length=length)


@FUZZ
@given(endpoint=st.sampled_from(Endpoint), body=st.binary(max_size=200))
async def test_bytes_that_are_no_json(edge: Edge, endpoint: Endpoint, body: bytes) -> None:
    answer = await edge.client.post(PATHS[endpoint], content=body, headers={"content-type": "application/json"})
    assert_refused(answer.status_code, answer.content)


@FUZZ
@given(endpoint=st.sampled_from(Endpoint), data=st.data())
async def test_json_of_the_wrong_types(
    edge: Edge, worker: ScriptedWorker, endpoint: Endpoint, data: st.DataObject
) -> None:
    names = st.sampled_from(sorted(parameters_of(endpoint))) | st.text(max_size=10)
    body = data.draw(st.dictionaries(names, ANY_JSON, max_size=5))
    # What is required is wrong for certain, so that nothing may get through.
    body |= {"messages": data.draw(ANY_JSON)} if endpoint is Endpoint.CHAT else {"prompt": {"a": 1}}
    answer = await edge.client.post(PATHS[endpoint], content=json.dumps(body).encode())
    assert_refused(answer.status_code, answer.content)
    assert worker.runs == []


@pytest.mark.parametrize("path", PATHS.values())
async def test_bodies_beyond_measure(edge: Edge, worker: ScriptedWorker, path: str) -> None:
    for name, body in HUGE:
        for chunked in (False, True):
            content: Any = _pieces(body) if chunked else body
            answer = await edge.client.post(path, content=content, headers={"content-type": "application/json"})
            try:
                assert_refused(answer.status_code, answer.content)
            except AssertionError as error:
                raise AssertionError(f"{name}, chunked={chunked}: {answer.status_code} {answer.text[:200]}") from error
    assert worker.runs == []


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 65536):
        yield body[start : start + 65536]


async def test_wrong_content_types_methods_and_encodings(edge: Edge, worker: ScriptedWorker) -> None:
    good = json.dumps(chat()).encode()
    for content_type in ("text/plain", "text/xml", "multipart/form-data", "application/x-www-form-urlencoded", "x", ""):
        answer = await edge.client.post(PATHS[Endpoint.CHAT], content=good, headers={"content-type": content_type})
        assert_refused(answer.status_code, answer.content)
    for headers in ({"content-encoding": "gzip"}, {"content-type": "application/json; charset=utf-16"}):
        answer = await edge.client.post(PATHS[Endpoint.CHAT], content=good, headers=headers)
        assert_refused(answer.status_code, answer.content)
    for method in ("GET", "PUT", "PATCH", "DELETE", "TRACE"):
        answer = await edge.client.request(method, PATHS[Endpoint.CHAT], content=good)
        assert_refused(answer.status_code, answer.content)
    assert worker.runs == []


@FUZZ
@given(headers=st.dictionaries(HEADER_NAMES, HEADER_TEXT, max_size=4))
async def test_any_headers(edge: Edge, headers: dict[str, str]) -> None:
    lines = [f"{name}: {value}" for name, value in headers.items()]
    data = post(b'{"messages": 5}', *lines).decode("utf-8").encode("latin-1", "replace")
    status, body = await exchange(edge, data, pause_s=1)
    assert status is not None
    assert_refused(status, body)


@FUZZ
@given(data=st.binary(min_size=1, max_size=300))
async def test_bytes_that_are_no_http(edge: Edge, data: bytes) -> None:
    status, body = await exchange(edge, data)
    if status is not None:
        assert_refused(status, body)


async def test_malformed_http(edge: Edge) -> None:
    for data in MALFORMED:
        status, body = await exchange(edge, data)
        assert status is None or (400 <= status < 500), data[:60]
        if status is not None:
            assert_refused(status, body)


async def test_bodies_that_do_not_come_or_do_not_end(edge: Edge, worker: ScriptedWorker) -> None:
    good = json.dumps(chat()).encode()
    for data in (
        post(good, length=len(good) + 1),
        post(b"", length=1000),
        post(b'5\r\n{"a":\r\n', "Transfer-Encoding: chunked"),
        post(b"", "Expect: 100-continue", length=100),
        post(b"", "Expect: 100-continue", length=10**9),
        post(b"", length=10**12),
        post(good, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: x", length=len(good) + 5),
    ):
        status, body = await exchange(edge, data, pause_s=1)
        assert status is not None, data[:300]
        body = body.partition(b"\r\n\r\n")[2] if status == 100 else body
        assert_refused(400 if status == 100 else status, body)
    assert worker.runs == []


async def test_an_upgrade_that_is_not_taken_up_is_an_ordinary_request(edge: Edge) -> None:
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: x")
    get = "\r\n".join(("GET /healthz HTTP/1.1", "Host: x", *upgrade)).encode() + b"\r\n\r\n"
    for data in (get, post(json.dumps(chat()).encode(), *upgrade)):
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.address.port)
        writer.write(data)
        async with asyncio.timeout(10):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.transport.abort()


async def test_a_body_cut_off_by_its_client_never_runs(edge: Edge, worker: ScriptedWorker) -> None:
    good = json.dumps(chat()).encode()
    await exchange(edge, post(good[:-1], length=len(good)))
    assert worker.runs == []


async def test_a_body_in_single_bytes_is_read(edge: Edge) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        for byte in json.dumps(chat("slow")).encode():
            yield bytes([byte])

    answer = await edge.client.post(PATHS[Endpoint.CHAT], content=slowly())
    assert answer.status_code in (200, 400)
