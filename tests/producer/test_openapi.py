"""The route table and the document made from it."""

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route as StarletteRoute

from producer.edge.guard import to_starlette
from producer.edge.openapi import openapi_document
from producer.edge.operation import Handler, Operation
from producer.edge.parameters import Support, parameters_of
from producer.edge.routes.table import ROUTES
from schemas.requests import Endpoint
from tests.producer.access_rules import rule_of
from tests.producer.conftest import ADMIN_KEY, KEY, READ_KEY, Edge


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(json.dumps(openapi_document(ROUTES, "1.2.3")))
    return loaded


def test_every_route_has_an_operation() -> None:
    for route in ROUTES:
        assert isinstance(route.handler, Handler), route.path
        assert isinstance(route.handler.operation, Operation), route.path
        assert route.handler.operation.summary, route.path


def test_only_the_listed_routes_answer_without_a_key() -> None:
    public = {route.path for route in ROUTES if not route.handler.operation.scopes}
    about = {"/version", "/openapi.json", "/docs", "/docs/{name}", "/.well-known/oauth-protected-resource", "/"}
    assert public == {"/healthz", "/health", "/livez", "/readyz", *about}


def test_the_router_serves_the_table_and_nothing_else() -> None:
    paths = {route.path for route in to_starlette(ROUTES) if isinstance(route, StarletteRoute)}
    assert paths == {path for route in ROUTES for path in (route.path, route.path.removeprefix("/v1"))}


def test_the_document_covers_the_table(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"] == "1.2.3"
    for route in ROUTES:
        path = re.sub(r":\w+}", "}", route.path)
        assert document["paths"][path][route.method.lower()]["responses"]["200"]


def test_operation_ids_differ(document: dict[str, Any]) -> None:
    ids = [each["operationId"] for path in document["paths"].values() for each in path.values()]
    assert len(ids) == len(set(ids))


def test_operations_stand_under_headings(document: dict[str, Any]) -> None:
    tags = {path: tag for path, each in document["paths"].items() for one in each.values() for tag in one["tags"]}
    expected = {"/v1/models/{id}": "models", "/v1/admin/cache/warm": "admin: cache", "/": "server", "/docs": "server"}
    assert expected.items() <= tags.items()


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)))
    assert references
    for reference in references:
        place: Any = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]
        assert isinstance(place, dict)


def test_path_parameters_are_declared(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            declared = [each["name"] for each in operation.get("parameters", [])]
            assert declared == re.findall(r"{(\w+)}", path)


def test_generation_bodies_list_the_served_parameters(document: dict[str, Any]) -> None:
    for endpoint, schema in (
        (Endpoint.CHAT, "ChatCompletionRequest"),
        (Endpoint.COMPLETIONS, "CompletionRequest"),
    ):
        served = {name for name, each in parameters_of(endpoint).items() if each.support is Support.SERVED}
        assert set(document["components"]["schemas"][schema]["properties"]) == served


def test_a_stream_that_is_read_on_has_the_chunks_of_either_route(document: dict[str, Any]) -> None:
    operation = document["paths"]["/v1/requests/{id}/events"]["get"]
    assert operation["x-inferflux-scopes"] == ["generate"]
    assert set(operation["responses"]["200"]["content"]) == {"text/event-stream"}
    assert {"400", "401", "403", "404", "410", "503"} <= set(operation["responses"])
    chunks = {each["$ref"].rpartition("/")[2] for each in document["components"]["schemas"]["AnyChunk"]["anyOf"]}
    assert chunks == {"ChatCompletionChunk", "CompletionChunk"}


def test_generation_answers_are_json_or_a_stream(document: dict[str, Any]) -> None:
    content = document["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "text/event-stream"}
    responses = document["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert {"400", "401", "403", "404", "413", "422", "429", "500", "503", "504"} <= set(responses)


def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(document).validate()


def test_who_may_call_an_operation_stands_in_it(document: dict[str, Any]) -> None:
    """As alternatives: a header, and a scope. Held against the rules written by hand."""
    schemes = set(document["components"]["securitySchemes"])
    for route in ROUTES:
        described = document["paths"][re.sub(r":\w+}", "}", route.path)][route.method.lower()]
        opens = rule_of(route.method, route.path).opens
        alternatives = [(name, *scopes) for each in described["security"] for name, scopes in each.items()]
        assert sorted(alternatives) == sorted((name, scope) for name in schemes for scope in opens), route.path


@pytest.mark.nats
async def test_answers_are_as_described(edge: Edge) -> None:
    document = (await edge.client.get("/openapi.json")).json()
    for route in ROUTES:
        if route.path.startswith("/v1/admin/") and route.method != "GET":
            continue  # what they change, and how they are asked, is their own tests' matter
        path = re.sub(r":\w+}", "}", route.path)
        responses = document["paths"][path][route.method.lower()]["responses"]
        rule = rule_of(route.method, route.path)
        bodies = [None] if rule.body is None else [rule.body, {**rule.body, "stream": True}, {}]
        for key in (KEY, READ_KEY, ADMIN_KEY, "unknown"):
            for body, name in [(body, name) for body in bodies for name in ("echo", "nope")]:
                answer = await edge.client.request(
                    route.method, re.sub(r"{\w+}", name, path), json=body, headers={"authorization": f"Bearer {key}"}
                )
                content = responses[str(answer.status_code)]["content"]
                media_type = answer.headers["content-type"].partition(";")[0]
                assert media_type in {each.partition(";")[0] for each in content}, (route.path, answer.status_code)
                for data in data_of(answer.text, media_type):
                    schema = {**content[media_type]["schema"], "components": document["components"]}
                    Draft202012Validator(schema).validate(data)


def data_of(text: str, media_type: str) -> list[Any]:
    """What a schema describes of an answer: the object, or each event's."""
    if media_type == "application/json":
        return [json.loads(text)]
    if media_type != "text/event-stream":
        return []
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]
