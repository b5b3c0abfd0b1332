"""Issuers as a login meets them: slow, away, refusing, and those that answer nonsense."""

import json
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ops.client.login.credentials import Login
from ops.client.login.device_flow import Prompt, log_in
from ops.client.login.issuer import Issuer, discover
from ops.errors import Failure
from tests.support.ports import free_port

BEGUN: dict[str, Any] = {
    "device_code": "device-code",
    "user_code": "ABCD-EFGH",
    "verification_uri": "http://127.0.0.1/device",
    "expires_in": 100,
    "interval": 5,
}
TOKENS = {"access_token": "secret-access", "refresh_token": "secret-refresh", "expires_in": 300}
PENDING = {"error": "authorization_pending"}
Answer = tuple[int, Any]


class Scripted:
    """An issuer whose token endpoint gives these answers, one after the other; None is a broken connection."""

    def __init__(self, *answers: Answer | None, begun: Answer = (200, BEGUN)) -> None:
        self._answers = list(answers)
        self._begun = begun
        self.asked: list[dict[str, str]] = []
        self.waits: list[float] = []
        self.shown: list[Prompt] = []
        self.url = ""

    def answer(self, request: BaseHTTPRequestHandler) -> Answer | None:
        if request.command == "GET":
            endpoints = {"token_endpoint": f"{self.url}/token", "device_authorization_endpoint": f"{self.url}/device"}
            return 200, {"issuer": self.url, **endpoints}
        body = request.rfile.read(int(request.headers["content-length"])).decode()
        self.asked.append(dict(urllib.parse.parse_qsl(body)))
        return self._begun if request.path == "/device" else self._answers.pop(0)

    def log_in(self, **asked: str) -> Login:
        clock = lambda: sum(self.waits)  # noqa: E731
        return log_in(discover(self.url), "cli", asked, self.shown.append, self.waits.append, clock)


@pytest.fixture
def serve() -> Iterator[Callable[[Scripted], Scripted]]:
    servers: list[ThreadingHTTPServer] = []

    def start(issuer: Scripted) -> Scripted:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = issuer.answer(self)
                if answer is None:
                    return
                status, document = answer
                body = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        issuer.url = f"http://127.0.0.1:{server.server_port}"
        return issuer

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_it_asks_as_often_as_the_issuer_wants(serve: Callable[[Scripted], Scripted]) -> None:
    slow_down = {"error": "slow_down"}
    issuer = serve(Scripted((400, PENDING), (400, slow_down), (400, PENDING), (400, slow_down), (200, TOKENS)))
    login = issuer.log_in(scope="openid", audience="llm", resource="https://llm.test")
    assert issuer.waits == [5, 5, 10, 10, 15]
    assert issuer.shown == [Prompt("http://127.0.0.1/device", "ABCD-EFGH", None)]
    begin, *polls = issuer.asked
    assert begin == {"client_id": "cli", "scope": "openid", "audience": "llm", "resource": "https://llm.test"}
    assert polls[0] == {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "device_code": "device-code",
        "client_id": "cli",
        "resource": "https://llm.test",
    }
    assert (login.access_token, login.refresh_token) == ("secret-access", "secret-refresh")
    assert "secret" not in repr(login)


def test_an_issuer_that_is_away_for_a_while_is_asked_less_often(serve: Callable[[Scripted], Scripted]) -> None:
    issuer = serve(Scripted(None, (503, b"busy"), (400, PENDING), (200, TOKENS)))
    issuer.log_in()
    assert issuer.waits == [5, 10, 20, 20]


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([(400, {"error": "access_denied"})], "was refused"),
        ([(400, {"error": "expired_token"})], "expired"),
        ([(400, PENDING)] * 30, "expired"),
        ([(401, {"error": "invalid_client", "error_description": "who\x1b[31m?"})], r"invalid_client: who\?\[31m\?"),
        ([(400, b"<html>")], "no reason given"),
        ([(200, {"token_type": "Bearer"})], "without an access token"),
        ([(200, b"[]")], "without an access token"),
    ],
)
def test_a_login_that_fails(serve: Callable[[Scripted], Scripted], answers: list[Answer], words: str) -> None:
    issuer = serve(Scripted(*answers))
    with pytest.raises(Failure, match=words):
        issuer.log_in()


@pytest.mark.parametrize(
    ("begun", "words"),
    [
        ((400, {"error": "invalid_scope"}), "refuses to begin a login: invalid_scope"),
        ((200, b"nonsense"), "refuses to begin"),
        ((200, {**BEGUN, "verification_uri": "javascript:alert(1)"}), "where to confirm"),
        ((200, {**BEGUN, "user_code": 7}), "where to confirm"),
    ],
)
def test_a_login_that_does_not_begin(serve: Callable[[Scripted], Scripted], begun: Answer, words: str) -> None:
    issuer = serve(Scripted(begun=begun))
    with pytest.raises(Failure, match=words):
        issuer.log_in()


def test_an_issuer_without_a_device_flow_or_without_an_answer() -> None:
    with pytest.raises(Failure, match="from a terminal"):
        log_in(Issuer("https://i.test", "https://i.test/token", None, None), "cli", {}, lambda _: None)
    with pytest.raises(Failure, match="refused"):
        discover(f"http://127.0.0.1:{free_port()}")
