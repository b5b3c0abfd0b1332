"""The surface apart from generation: paths, methods, probes, keys, scopes, cross-origin calls, ids, error objects."""

from itertools import product
from typing import Any

import httpx2
import pytest

from producer.edge.cors import Cors
from schemas.errors import ErrorCode, error_kind
from tests.producer.conftest import CONFIG, KEY, OTHER_KEY, Edge, chat

pytestmark = pytest.mark.nats

PUBLIC = ("/healthz", "/health", "/livez", "/readyz", "/version", "/openapi.json", "/")


def assert_error(answer: httpx2.Response, code: ErrorCode) -> None:
    assert answer.status_code == error_kind(code).status
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["type"]) == (code, error_kind(code).type)
    assert answer.headers["x-request-id"]
    assert answer.headers["content-type"].startswith("application/json")


async def test_probes_and_documents_need_no_key(edge: Edge) -> None:
    async with httpx2.AsyncClient(base_url=edge.url, trust_env=False) as stranger:
        for path in PUBLIC:
            answer = await stranger.get(path)
            assert answer.status_code == 200, path
            assert answer.headers["x-request-id"]
        assert (await stranger.get("/version")).json() == {"version": CONFIG.version}
        assert (await stranger.get("/")).json()["name"] == "inferflux"


async def test_keys_are_taken_from_any_of_their_headers(edge: Edge) -> None:
    async with httpx2.AsyncClient(base_url=edge.url, trust_env=False) as client:
        for headers in (
            {"authorization": f"bEaReR {KEY}"},
            {"x-api-key": KEY},
            {"api-key": KEY},
        ):
            assert (await client.get("/v1/models", headers=headers)).status_code == 200


async def test_paths_answer_with_and_without_v1_and_slash(edge: Edge) -> None:
    calls: list[tuple[str, str, Any, int]] = [
        ("POST", "/chat/completions", chat(), 200),
        ("POST", "/completions", {"prompt": "a"}, 200),
        ("GET", "/models", None, 200),
        ("GET", "/models/echo", None, 200),
        ("GET", "/models/org%2Fnope", None, 404),
        ("DELETE", "/requests/nope", None, 404),
        ("GET", "/requests/nope/events", None, 404),
    ]
    for prefix, slash in product(("", "/v1"), ("", "/")):
        for method, path, body, status in calls:
            answer = await edge.client.request(method, prefix + path + slash, json=body, follow_redirects=False)
            assert answer.status_code == status, (method, prefix + path + slash)


async def test_unknown_paths_and_methods_are_error_objects(edge: Edge) -> None:
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        for path in ("/nope", "/v1/nope", "/v1", "/v1/chat", "/v2/models", "/v1/v1/models", "/%00"):
            assert_error(await edge.client.request(method, path), ErrorCode.ROUTE_NOT_FOUND)
    for method, path in (("GET", "/v1/chat/completions"), ("PUT", "/v1/models"), ("POST", "/healthz"), ("PATCH", "/")):
        answer = await edge.client.request(method, path)
        assert_error(answer, ErrorCode.METHOD_NOT_ALLOWED)
        assert answer.headers["allow"]


async def test_head_answers_like_get_without_a_body(edge: Edge) -> None:
    for path in ("/healthz", "/v1/models", "/"):
        head, get = await edge.client.head(path), await edge.client.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == get.headers["content-length"]
    assert (await edge.client.head("/v1/chat/completions")).status_code == 405
    assert (await edge.client.head("/nope")).status_code == 404


async def test_options_name_the_methods(edge: Edge) -> None:
    answer = await edge.client.options("/v1/models/")
    assert (answer.status_code, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
    assert "POST" in (await edge.client.options("/chat/completions")).headers["allow"]
    assert_error(await edge.client.options("/nope"), ErrorCode.ROUTE_NOT_FOUND)


async def test_pages_on_this_machine_may_call(edge: Edge) -> None:
    asked = "authorization,content-type,x-stainless-lang"
    for origin in ("http://localhost:3000", "http://127.0.0.1:5173", "https://localhost", "http://[::1]:80"):
        preflight = await edge.client.options(
            "/v1/chat/completions",
            headers={
                "origin": origin,
                "access-control-request-method": "POST",
                "access-control-request-headers": asked,
            },
        )
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == origin
        assert preflight.headers["access-control-allow-headers"] == asked
        assert "POST" in preflight.headers["access-control-allow-methods"]
        for body in (chat(), chat(n=2), chat(stream=True)):
            answer = await edge.post(body, origin=origin)
            assert answer.headers["access-control-allow-origin"] == origin
            assert "x-request-id" in answer.headers["access-control-expose-headers"].lower()


async def test_other_pages_may_not_unless_configured(edge: Edge) -> None:
    allowed = "access-control-allow-origin"
    for origin in ("https://evil.example", "http://localhost.evil.example", "null", "http://127.0.0.1x"):
        preflight = await edge.client.options(
            "/v1/models", headers={"origin": origin, "access-control-request-method": "GET"}
        )
        assert preflight.status_code == 204
        assert allowed not in preflight.headers
        assert allowed not in (await edge.client.get("/v1/models", headers={"origin": origin})).headers
    assert Cors(["https://app.example/"]).allows("https://APP.example")
    assert not Cors(["https://app.example"]).allows("https://app.example.org")
    assert Cors(["*"]).allows("https://anything.example")


async def test_ids_are_ours_and_a_clients_own_is_echoed(edge: Edge) -> None:
    answer = await edge.client.get("/v1/models", headers={"x-request-id": "mine/1"})
    assert answer.headers["x-client-request-id"] == "mine/1"
    assert answer.headers["x-request-id"] != "mine/1"
    refused = await edge.post(chat(n=3), X_Request_Id="mine/2")
    assert refused.headers["x-client-request-id"] == "mine/2"
    other = await edge.client.get("/healthz", headers={"x-client-request-id": "a b\tc" + "x" * 500})
    assert len(other.headers["x-client-request-id"]) == 128
    assert "x-client-request-id" not in (await edge.client.get("/healthz")).headers


async def test_headers_that_steer_are_checked_by_name(edge: Edge) -> None:
    for name, value, code in (
        ("X-Request-Timeout", "soon", ErrorCode.INVALID_PARAMETER),
        ("X-Request-Timeout", "0", ErrorCode.INVALID_PARAMETER),
        ("X-Request-Timeout", "nan", ErrorCode.INVALID_PARAMETER),
        ("X-Request-Timeout", "1e9", ErrorCode.INVALID_PARAMETER),
        ("X-InferFlux-On-Disconnect", "maybe", ErrorCode.INVALID_PARAMETER),
        ("X-InferFlux-Queue-Updates", "yes", ErrorCode.INVALID_PARAMETER),
        ("X-InferFlux-Journal", "maybe", ErrorCode.INVALID_PARAMETER),
    ):
        answer = await edge.client.post("/v1/chat/completions", json=chat(), headers={name: value})
        assert_error(answer, code)
        assert answer.json()["error"]["param"] == name
    for name in ("X-InferFlux-On-Disconnect", "X-InferFlux-Queue-Updates", "Last-Event-ID"):
        answer = await edge.client.get("/v1/requests/nope/events", headers={name: "maybe"})
        assert_error(answer, ErrorCode.INVALID_PARAMETER)
        assert answer.json()["error"]["param"] == name


async def test_models_say_where_they_run_and_why(edge: Edge) -> None:
    (model,) = (await edge.client.get("/v1/models")).json()["data"]
    assert model == (await edge.client.get("/v1/models/gpt-4o-mini")).json()
    assert model["aliases"] == ["gpt-4o-mini"] and model["default"] is True
    assert model["backends"] == [
        {
            "worker": "w1",
            "backend": "echo",
            "reason": "asked for",
            "fingerprint": "fp_test",
            "context": 2048,
            "slots": 4,
        }
    ]


async def test_another_owner_has_the_same_rights_but_not_the_same_requests(edge: Edge) -> None:
    answer = await edge.post(chat(), authorization=f"Bearer {OTHER_KEY}")
    assert answer.status_code == 200
