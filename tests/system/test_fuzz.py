"""Whatever arrives: a 4xx error object in time, no trace of it behind the edge, and a normal call succeeds."""

import errno
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producer.edge.parameters import parameters_of
from schemas.requests import Endpoint
from tests.producer.test_parameters import ANY_JSON
from tests.support.counts import full_or
from tests.support.malformed import HEADER_NAMES, HEADER_TEXT, HUGE, MALFORMED, PATHS, assert_refused, post
from tests.system.broker_state import journal_records, last_sequences
from tests.system.stack import KEY, Stack, echo_config, running, until
from tests.system.transitions import Transition, transitions_of

FUZZ = settings(
    max_examples=full_or(1000, reduced=50),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ANSWER_LIMIT_S = 20.0
WORK = ("inferflux_step_seconds_count", "inferflux_prompt_tokens_total", "inferflux_completion_tokens_total")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("fuzz")
    config = echo_config(folder, "echo:repeat")
    with (
        running(folder / "data", "--config", str(config), env={"INFERFLUX_SERVER__BODY_TIMEOUT_S": "1"}) as started,
        httpx2.Client(base_url=started.url) as client,
    ):
        assert complete(client, "warm up") == "warm up"
        until(lambda: is_purged(started), "the journal is purged")
        yield started


@pytest.fixture(scope="module")
def told(stack: Stack) -> Iterator[list[Transition]]:
    with transitions_of(stack) as told:
        yield told


@pytest.fixture
def client(stack: Stack, told: list[Transition]) -> Iterator[httpx2.Client]:
    """A client for things that are all refused."""
    with httpx2.Client(
        base_url=stack.url, headers={"authorization": f"Bearer {KEY}"}, timeout=ANSWER_LIMIT_S
    ) as client:
        num_told, work, sequences = len(told), work_of(stack), last_sequences(stack)
        yield client
        assert told[num_told:] == []
        assert work_of(stack) == work
        assert last_sequences(stack) == sequences
        assert complete(client, "still here") == "still here"
        assert work_of(stack) != work
        settle(stack, told)


def work_of(stack: Stack) -> list[float]:
    """What the worker has computed so far."""
    return [stack.metric_sum(family) for family in WORK]


def settle(stack: Stack, told: list[Transition]) -> None:
    """Wait until nothing more will come of the calls before."""
    accepted = {each.request_id for each in told if each.event == "accepted"}
    until(lambda: accepted == {each.request_id for each in told if each.event == "ended"}, "the edge is done")
    until(lambda: accepted == {each.request_id for each in told if each.event == "finished"}, "the worker is done")
    until(lambda: is_purged(stack), "the journals are purged")


def is_purged(stack: Stack) -> bool:
    """Whether each journal has come down to its mark."""
    return all(subject.endswith(".run") and number == 1 for subject, number in journal_records(stack).items())


def complete(client: httpx2.Client, prompt: str) -> str:
    answer = client.post("/v1/completions", json={"prompt": prompt}, headers={"authorization": f"Bearer {KEY}"})
    return str(answer.json()["choices"][0]["text"])


def exchange(stack: Stack, data: bytes, *, may_end: bool = True) -> tuple[int | None, bytes]:
    """Send bytes as they are and read to the end of the connection: status and body; None when there was no answer."""
    answer = b""
    with socket.create_connection(("127.0.0.1", stack.port), timeout=ANSWER_LIMIT_S) as connection:
        try:
            connection.sendall(data)
            if may_end:
                connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionError:
            pass
        except OSError as error:
            # The server has closed it by the time that our side does.
            if error.errno != errno.ENOTCONN:
                raise
    if not answer:
        return None, b""
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


@FUZZ
@given(endpoint=st.sampled_from(Endpoint), body=st.binary(max_size=200))
def test_bytes_that_are_no_json(client: httpx2.Client, endpoint: Endpoint, body: bytes) -> None:
    answer = client.post(PATHS[endpoint], content=body, headers={"content-type": "application/json"})
    assert_refused(answer.status_code, answer.content)


@FUZZ
@given(endpoint=st.sampled_from(Endpoint), data=st.data())
def test_json_of_the_wrong_types(client: httpx2.Client, endpoint: Endpoint, data: st.DataObject) -> None:
    names = st.sampled_from(sorted(parameters_of(endpoint))) | st.text(max_size=10)
    body = data.draw(st.dictionaries(names, ANY_JSON, max_size=5))
    # What is required is wrong for certain, so that nothing may get through.
    body |= {"messages": data.draw(ANY_JSON)} if endpoint is Endpoint.CHAT else {"prompt": {"a": 1}}
    answer = client.post(PATHS[endpoint], content=json.dumps(body).encode())
    assert_refused(answer.status_code, answer.content)


@pytest.mark.parametrize("path", PATHS.values())
@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_beyond_measure(client: httpx2.Client, path: str, chunked: bool) -> None:
    for name, body in HUGE:
        content: Any = iter([body[:70_000], body[70_000:]]) if chunked else body
        answer = client.post(path, content=content, headers={"content-type": "application/json"})
        try:
            assert_refused(answer.status_code, answer.content)
        except AssertionError as error:
            raise AssertionError(f"{name}: {answer.status_code} {answer.text[:200]}") from error


def test_wrong_content_types_methods_and_encodings(client: httpx2.Client) -> None:
    good = json.dumps({"messages": [{"role": "user", "content": "a"}]}).encode()
    wrong = [{"content-type": kind} for kind in ("text/plain", "multipart/form-data", "application/x-ndjson", "x", "")]
    wrong += [{"content-encoding": "gzip"}, {"content-type": "application/json; charset=utf-16"}]
    for path in PATHS.values():
        for headers in wrong:
            answer = client.post(path, content=good, headers=headers)
            assert_refused(answer.status_code, answer.content)
        for method in ("GET", "PUT", "PATCH", "DELETE", "TRACE", "QUERY"):
            answer = client.request(method, path, content=good)
            assert_refused(answer.status_code, answer.content)


@FUZZ
@given(
    method=st.sampled_from(("GET", "POST", "PUT", "DELETE", "PATCH")),
    folder=st.sampled_from(("/v1/requests/", "/v1/models/", "/v1/", "/v1/chat/completions/", "/requests/", "/")),
    rest=st.binary(max_size=40).filter(lambda rest: not set(rest) & set(b" \r\n\0")),
)
def test_any_path(stack: Stack, client: httpx2.Client, method: str, folder: str, rest: bytes) -> None:
    path = folder.encode() + b"~" + rest  # there is nothing by such a name
    lines = ("HTTP/1.1", "Host: x", f"Authorization: Bearer {KEY}", "Content-Length: 0", "Connection: close", "", "")
    status, body = exchange(stack, b" ".join((method.encode(), path, "\r\n".join(lines).encode())))
    assert status is not None
    assert_refused(status, body)


@FUZZ
@given(headers=st.dictionaries(HEADER_NAMES, HEADER_TEXT, max_size=4))
def test_any_headers(stack: Stack, client: httpx2.Client, headers: dict[str, str]) -> None:
    lines = [f"{name}: {value}" for name, value in headers.items()]
    data = post(b'{"messages": 5}', *lines, key=KEY).decode("utf-8").encode("latin-1", "replace")
    status, body = exchange(stack, data, may_end=False)
    assert status is not None
    assert_refused(status, body)


@FUZZ
@given(data=st.binary(min_size=1, max_size=300))
def test_bytes_that_are_no_http(stack: Stack, client: httpx2.Client, data: bytes) -> None:
    status, body = exchange(stack, data)
    if status is not None:
        assert_refused(status, body)


def test_malformed_http(stack: Stack, client: httpx2.Client) -> None:
    for data in MALFORMED:
        status, body = exchange(stack, data)
        if status is not None:
            assert_refused(status, body)


def test_bodies_that_do_not_come_or_do_not_end(stack: Stack, client: httpx2.Client) -> None:
    good = json.dumps({"prompt": "a"}).encode()
    for lines, body, length in (
        ((), good, len(good) + 1),
        ((), b"", 1000),
        (("Transfer-Encoding: chunked",), b'5\r\n{"a":\r\n', None),
        (("Expect: 100-continue",), b"", 100),
        (("Expect: 100-continue",), b"", 10**9),
    ):
        status, answer = exchange(stack, post(body, *lines, key=KEY, length=length), may_end=False)
        if status == 100:
            head, _, answer = answer.partition(b"\r\n\r\n")
            status = int(head.split(b" ")[1])
        assert status is not None
        assert_refused(status, answer)
    # Cut off by the client in the middle: nobody reads an answer, and nothing runs.
    exchange(stack, post(good[:-1], key=KEY, length=len(good)))
