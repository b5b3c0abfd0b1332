"""What a login takes from the server it is for."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ops.client.client import Client
from ops.client.login.server import Wanted, _is_same, read_wanted
from ops.errors import Failure

Serve = Callable[[Any], Client]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A server that describes itself so; `{url}` is its own address."""
    servers: list[ThreadingHTTPServer] = []

    def start(document: Any) -> Client:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(document).replace("{url}", f"http://{self.headers['host']}").encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return Client("127.0.0.1", server.server_port, None)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_issuer_client_audience_and_scopes(serve: Serve) -> None:
    issuers = {"resource": "{url}", "authorization_servers": ["https://a.test", "https://b.test"]}
    ours = {"inferflux_client_id": "cli", "inferflux_audience": "llm", "scopes_supported": ["openid", 7]}
    with serve({**issuers, **ours}) as client:
        assert read_wanted(client) == Wanted("https://a.test", "cli", "llm", ("openid",))
    with serve(issuers) as client:
        assert read_wanted(client) == Wanted("https://a.test", None, None, ())


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"resource": "https://llm.example", "authorization_servers": ["https://a.test"]}, "calls itself"),
        ({"authorization_servers": ["https://a.test"]}, "calls itself"),
        ({"resource": "{url}", "authorization_servers": []}, "whose tokens"),
        ({"resource": "{url}", "authorization_servers": [7]}, "whose tokens"),
        ([], "whose tokens"),
    ],
)
def test_a_description_that_is_not_followed(serve: Serve, document: Any, words: str) -> None:
    with serve(document) as client, pytest.raises(Failure, match=words):
        read_wanted(client)


@pytest.mark.parametrize(
    ("one", "other", "are_same"),
    [
        ("https://llm.example", "https://llm.example:443", True),
        ("https://LLM.example/", "https://llm.example:443", True),
        ("http://llm.example", "http://llm.example:80", True),
        ("http://llm.example", "http://llm.example:8080", False),
        ("http://llm.example", "https://llm.example", False),
        ("None", "http://llm.example:8080", False),
    ],
)
def test_addresses_of_one_server(one: str, other: str, are_same: bool) -> None:
    assert _is_same(one, other) is are_same
