"""What a login takes from the server it is for."""

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from ops.client.client import Client
from ops.client.login.server import Wanted, _is_same, read_wanted
from ops.errors import Failure
from tests.support.http_server import Serve, reply

Describe = Callable[[Any], Client]


@pytest.fixture
def describe(serve: Serve) -> Describe:
    """A server that describes itself so; `{url}` is its own address."""

    def start(document: Any) -> Client:
        def answer(request: BaseHTTPRequestHandler) -> None:
            text = json.dumps(document).replace("{url}", f"http://{request.headers['host']}")
            reply(200, text.encode())(request)

        return serve(answer)

    return start


def test_issuer_client_audience_and_scopes(describe: Describe) -> None:
    issuers = {"resource": "{url}", "authorization_servers": ["https://a.test", "https://b.test"]}
    ours = {"inferflux_client_id": "cli", "inferflux_audience": "llm", "scopes_supported": ["openid", 7]}
    with describe({**issuers, **ours}) as client:
        assert read_wanted(client) == Wanted("https://a.test", "cli", "llm", ("openid",))
    with describe(issuers) as client:
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
def test_a_description_that_is_not_followed(describe: Describe, document: Any, words: str) -> None:
    with describe(document) as client, pytest.raises(Failure, match=words):
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
