"""What `inferctl` makes of servers that misbehave."""

from http.server import BaseHTTPRequestHandler

import pytest

from ops.client.client import Client
from ops.errors import Failure
from tests.support.http_server import Answer, Serve, reply


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (400, b'{"error": {"message": "no", "code": "invalid_json"}}', r"^no \[invalid_json\]$"),
        (401, b'{"error": {"message": "no"}}', r"^no$"),
        (502, b"<html>", r"^HTTP 502$"),
        (500, b'{"error": "text"}', r"without a message"),
        (200, b"not json", r"not JSON"),
    ],
)
def test_an_answer_that_is_none(serve: Serve, status: int, body: bytes, message: str) -> None:
    with serve(reply(status, body)) as client, pytest.raises(Failure, match=message):
        client.get("/v1/models")


@pytest.mark.parametrize(
    ("body", "texts", "message"),
    [
        (b'data: {"n": 1}\n\ndata: [DONE]\n\n', [{"n": 1}], None),
        (b'data: {"n": 1}\n\n', [{"n": 1}], "cut"),
        (b'data: {"n": 1}\n\ndata: {"error": {"message": "poisoned"}}\n\n', [{"n": 1}], "poisoned"),
    ],
)
def test_a_stream_ends_well_only_with_done(serve: Serve, body: bytes, texts: list[object], message: str | None) -> None:
    seen = []
    with serve(reply(200, body)) as client:
        stream = client.stream("/v1/completions", {})
        try:
            seen.extend(stream)
        except Failure as failure:
            assert message is not None
            assert message in str(failure)
        else:
            assert message is None
    assert seen == texts


def test_a_connection_that_breaks_is_one_line(serve: Serve) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100")
        request.end_headers()
        request.wfile.write(b'data: {"n": 1}\n\n')

    with serve(answer) as client, pytest.raises(Failure, match="the connection broke"):
        list(client.stream("/v1/completions", {}))


class Parts:
    """A stream of three tokens that breaks again and again. `asked` are the method and place of every request."""

    PATH = "/v1/requests/abc/events"

    def __init__(self, *endings: Answer) -> None:
        self._endings = list(endings)
        self.asked: list[tuple[str, str, str | None]] = []

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        place = request.headers["Last-Event-ID"]
        self.asked.append((request.command, request.path, place))
        start = int(place) + 1 if place is not None else 0
        if not self._endings:
            texts = [f'id: {index}\ndata: {{"n": {index}}}\n\n' for index in range(start, 3)]
            begin(request)
            request.wfile.write("".join([*texts, "data: [DONE]\n\n"]).encode())
            return
        ending = self._endings.pop(0)
        if isinstance(ending, Cut):
            begin(request)
            request.wfile.write(f'id: {start}\ndata: {{"n": {start}}}\n\n'.encode())
        ending(request)


def begin(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("X-InferFlux-Resume", Parts.PATH)
    request.end_headers()


class Cut:
    """The end of a stream before its time, in the middle of an event, or after these words."""

    def __init__(self, words: str = 'id: 9\ndata: {"n"') -> None:
        self._words = words

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(self._words.encode())


INTERRUPTED = f'data: {{"error": {{"message": "going", "resume_url": "{Parts.PATH}", "last_event_id": "0"}}}}\n\n'


@pytest.mark.parametrize("ending", [Cut(), Cut(""), Cut(INTERRUPTED)])
def test_a_broken_stream_is_read_on_and_nobody_sees_it(serve: Serve, ending: Answer) -> None:
    parts = Parts(ending, reply(503, b"{}"), Cut(""))
    with serve(parts) as client:
        assert list(client.stream("/v1/completions", {})) == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert parts.asked == [
        ("POST", "/v1/completions", None),
        ("GET", Parts.PATH, "0"),
        ("GET", Parts.PATH, "0"),
        ("GET", Parts.PATH, "1"),
    ]


def test_a_call_that_was_interrupted_before_its_status_is_read_on(serve: Serve) -> None:
    def drained(request: BaseHTTPRequestHandler) -> None:
        request.send_response(503)
        request.send_header("X-InferFlux-Resume", Parts.PATH)
        request.end_headers()

    with serve(Parts(drained)) as client:
        assert list(client.stream("/v1/completions", {})) == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_reading_on_is_given_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.client.resuming.PAUSES_S", (0.0, 0.0))
    for answers, message in (
        ((Cut(""), *3 * [reply(503, b'{"error": {"message": "away"}}')]), "away"),
        ((Cut(""), reply(410, b'{"error": {"message": "it was dropped"}}')), "it was dropped"),
    ):
        with serve(Parts(*answers)) as client, pytest.raises(Failure, match=message):
            list(client.stream("/v1/completions", {}))


def test_a_proxy_of_the_environment_is_not_used_on_loopback(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with serve(reply(200, b"{}")) as client:
        assert client.get("/version") == {}


def test_the_known_key_is_sent_on_loopback_only(serve: Serve) -> None:
    seen: list[str | None] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        seen.append(request.headers["Authorization"])
        reply(200, b"{}")(request)

    with serve(answer) as client:
        client.get("/")
    assert seen == ["Bearer dev-key-123"]
    assert "Authorization" not in Client("192.0.2.1", 80, None)._http.headers


def test_what_is_told_before_an_answer(serve: Serve) -> None:
    asked: list[str | None] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.headers["X-InferFlux-Queue-Updates"])
        request.send_response(200)
        request.send_header("X-Request-Id", "abc")
        request.end_headers()
        request.wfile.write(b': queued position=1 eta_s=2\n: ping\ndata: {"n": 1}\n\ndata: [DONE]\n\n')

    told: list[str] = []
    with serve(answer) as client:
        generation = client.generation(told.append)
        assert list(generation.chunks("/v1/completions", {})) == [{"n": 1}]
        assert (told, generation.request_id) == (["queued position=1 eta_s=2", "ping"], "abc")
        assert list(client.stream("/v1/completions", {})) == [{"n": 1}]
    assert asked == ["on", None]
