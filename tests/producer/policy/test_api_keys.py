"""API keys as administrators make and end them: two edges on one broker, real HTTP."""

import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, NamedTuple

import httpx2
import pytest

from schemas.errors import ErrorCode
from tests.conftest import Broker
from tests.producer.conftest import (
    ADMIN_KEY,
    CONFIG,
    KEYS,
    OTHER_KEY,
    Edge,
    chat,
    running_edge,
    until_served,
)
from tests.producer.scripted_worker import Run, ScriptedWorker, echo
from tests.support.waiting import until

pytestmark = [pytest.mark.nats, pytest.mark.usefixtures("worker")]

KEYS_PATH = "/v1/admin/api_keys"


class Pair(NamedTuple):
    """Two edges of one fleet."""

    one: Edge
    two: Edge


@contextlib.asynccontextmanager
async def running_pair(broker: Broker, **changes: Any) -> AsyncIterator[Pair]:
    config = replace(CONFIG, **changes)
    async with running_edge(broker, config) as one, running_edge(broker, replace(config, edge_id="e2")) as two:
        await until_served(one)
        await until_served(two)
        yield Pair(one, two)


@pytest.fixture
async def pair(broker: Broker, worker: ScriptedWorker) -> AsyncIterator[Pair]:
    async with running_pair(broker) as pair:
        yield pair


async def administer(edge: Edge, method: str, path: str, body: Any = None, key: str = ADMIN_KEY) -> httpx2.Response:
    return await edge.client.request(method, path, json=body, headers={"authorization": f"Bearer {key}"})


async def issue(edge: Edge, **body: Any) -> dict[str, Any]:
    answer = await administer(edge, "POST", KEYS_PATH, {"name": "app", **body})
    assert answer.status_code == 200, answer.text
    issued: dict[str, Any] = answer.json()
    return issued


async def ask(edge: Edge, key: str, **body: Any) -> httpx2.Response:
    return await edge.client.post("/v1/chat/completions", json=chat(**body), headers={"authorization": f"Bearer {key}"})


async def until_status(edge: Edge, key: str, status: int) -> httpx2.Response:
    """What the edge says to the key, once the news have come there."""
    answers: list[httpx2.Response] = []

    async def says() -> bool:
        answers[:] = [await ask(edge, key)]
        return answers[0].status_code == status

    await until(says)
    return answers[0]


async def test_an_issued_key_is_shown_once_and_opens_what_it_says_at_every_edge(pair: Pair) -> None:
    issued = await issue(pair.one, scopes=["generate"], models=["ec*"], tenant="acme")
    assert issued["key"].startswith(f"ifx_{issued['id']}_")
    assert (issued["tenant"], issued["models"], issued["source"]) == ("acme", ["ec*"], "store")
    await until_status(pair.two, issued["key"], 200)
    listed = (await administer(pair.two, "GET", KEYS_PATH)).json()
    assert listed["object"] == "list"
    [mine] = [key for key in listed["data"] if key["id"] == issued["id"]]
    assert mine == {name: value for name, value in issued.items() if name != "key"}
    assert {key["name"] for key in listed["data"] if key["source"] == "file"} == {spec.name for spec in KEYS}
    assert "digest" not in json.dumps(listed)
    high = await ask(pair.two, issued["key"], priority=9)
    assert (high.status_code, high.json()["error"]["code"]) == (403, "priority_not_allowed")
    models = await pair.two.client.get("/metrics", headers={"authorization": f"Bearer {issued['key']}"})
    assert models.json()["error"]["code"] == "insufficient_scope"


async def test_a_revoked_key_is_refused_everywhere_and_its_streams_end(pair: Pair, worker: ScriptedWorker) -> None:
    async def hang(run: Run) -> None:
        await run.say("hello")
        await run.cancelled.wait()

    issued = await issue(pair.one)
    await until_status(pair.two, issued["key"], 200)
    worker.script = hang
    headers = {"authorization": f"Bearer {issued['key']}"}
    async with (
        pair.one.client.stream("POST", "/v1/chat/completions", json=chat(stream=True), headers=headers) as first,
        pair.two.client.stream("POST", "/v1/chat/completions", json=chat(stream=True), headers=headers) as second,
    ):
        lines = [answer.aiter_lines() for answer in (first, second)]
        for each in lines:
            async for line in each:
                if "hello" in line:
                    break
        revoked = await administer(pair.one, "DELETE", f"{KEYS_PATH}/{issued['id']}")
        assert revoked.json() == {"id": issued["id"], "object": "api_key", "revoked": True}
        for each in lines:
            rest = [line async for line in each if line.startswith("data: ")]
            assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "invalid_api_key"
    # The work has ended too.
    for run in worker.runs[-2:]:
        await run.cancelled.wait()
    for edge in pair:
        refused = await ask(edge, issued["key"])
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    assert (await administer(pair.two, "DELETE", f"{KEYS_PATH}/{issued['id']}")).status_code == 404


async def test_a_key_of_the_file_is_revoked_by_its_name_and_stays_so_after_a_restart(broker: Broker) -> None:
    async with running_pair(broker) as pair:
        assert (await ask(pair.two, OTHER_KEY)).status_code == 200
        assert (await administer(pair.one, "DELETE", f"{KEYS_PATH}/bob")).status_code == 200
        await until_status(pair.two, OTHER_KEY, 401)
    async with running_pair(broker) as again:
        assert (await ask(again.one, OTHER_KEY)).status_code == 401
        listed = (await administer(again.one, "GET", KEYS_PATH)).json()["data"]
        assert [key["status"] for key in listed if key["name"] == "bob"] == ["revoked"]


async def test_after_a_rotation_the_old_secret_opens_until_its_grace_is_over(
    pair: Pair, worker: ScriptedWorker
) -> None:
    issued = await issue(pair.one)
    with_grace = (await administer(pair.one, "POST", f"{KEYS_PATH}/{issued['id']}/rotate", {"grace_s": 3600})).json()
    assert with_grace["id"] == issued["id"]
    for key in (issued["key"], with_grace["key"]):
        await until_status(pair.two, key, 200)
    at_once = (await administer(pair.two, "POST", f"{KEYS_PATH}/app/rotate", {"grace_s": 0})).json()
    for edge in pair:
        await until_status(edge, at_once["key"], 200)
        for key in (issued["key"], with_grace["key"]):
            assert (await ask(edge, key)).status_code == 401


async def test_a_stream_ends_when_its_key_expires(pair: Pair, worker: ScriptedWorker) -> None:
    async def hang(run: Run) -> None:
        await run.say("hello")
        await run.cancelled.wait()

    worker.script = hang
    for expires_in_s in (2, 20):  # on a machine that stands still for a moment the shorter one may be over by then
        issued = await issue(pair.one, name=f"app-{expires_in_s}", expires_in_s=expires_in_s)
        headers = {"authorization": f"Bearer {issued['key']}"}
        async with pair.one.client.stream(
            "POST", "/v1/chat/completions", json=chat(stream=True), headers=headers
        ) as answer:
            events = [line async for line in answer.aiter_lines() if line.startswith("data: ")]
        if answer.status_code == 200:
            break
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "invalid_api_key"
    assert time.time() >= issued["expires_at"]
    worker.script = echo
    refused = await ask(pair.one, issued["key"])
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "expired_token")


async def test_an_update_changes_what_is_given_and_nothing_else(pair: Pair) -> None:
    issued = await issue(pair.one, limits={"requests_per_minute": 5}, ceiling="high")
    path = f"{KEYS_PATH}/{issued['id']}"
    updated = (await administer(pair.one, "PATCH", path, {"models": ["other"], "ceiling": None})).json()
    assert (updated["models"], updated["ceiling"]) == (["other"], None)
    assert updated["limits"]["requests_per_minute"] == 5
    refused = await until_status(pair.two, issued["key"], 403)
    assert refused.json()["error"]["code"] == "model_not_allowed"


async def test_bad_input_is_named(broker: Broker) -> None:
    calls: list[tuple[str, str, Any, int, str | None]] = [
        ("POST", "", {}, 400, "name"),
        ("POST", "", {"name": ""}, 400, "name"),
        ("POST", "", {"name": "a\nb"}, 400, "name"),
        ("POST", "", {"name": "alice"}, 400, "name"),
        ("POST", "", {"name": "x", "scopes": ["root"]}, 400, "scopes.0"),
        ("POST", "", {"name": "x", "scopes": []}, 400, "scopes"),
        ("POST", "", {"name": "x", "ceiling": "urgent"}, 400, "ceiling"),
        ("POST", "", {"name": "x", "limits": {"requests": 1}}, 400, "limits.requests"),
        ("POST", "", {"name": "x", "key": "mine"}, 400, "key"),
        ("POST", "", {"name": "x", "expires_at": 1, "expires_in_s": 1}, 400, None),
        ("POST", "/absent/rotate", {}, 404, None),
        ("POST", "/absent/rotate", {"grace_s": -1}, 400, "grace_s"),
        ("PATCH", "/absent", {"name": "x"}, 404, None),
        ("PATCH", "/absent", {"scope": "x"}, 400, "scope"),
        ("DELETE", "/absent", None, 404, None),
    ]
    async with running_edge(broker) as edge:
        for method, path, body, status, param in calls:
            answer = await administer(edge, method, KEYS_PATH + path, body)
            assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text


async def test_nobody_is_locked_out_by_the_first_key(broker: Broker) -> None:
    """The well-known key ends with the first one that is issued, so that one has to open administration."""
    default = replace(KEYS[3], key="dev-key-123", name="dev", is_default=True)
    async with running_pair(broker, keys=(default,)) as pair:
        body = {"name": "app", "scopes": ["generate"]}
        refused = await administer(pair.one, "POST", KEYS_PATH, body, default.key)
        assert (refused.status_code, "admin" in refused.json()["error"]["message"]) == (400, True)
        body = {"name": "root", "scopes": ["admin", "generate"]}
        issued = (await administer(pair.one, "POST", KEYS_PATH, body, default.key)).json()
        await until_status(pair.two, default.key, 401)
        assert (await administer(pair.two, "GET", KEYS_PATH, key=issued["key"])).status_code == 200
        last = await administer(pair.two, "DELETE", f"{KEYS_PATH}/root", key=issued["key"])
        assert last.status_code == 400
    async with running_pair(broker, keys=(default,)) as again:
        assert (await ask(again.one, default.key)).status_code == 401


async def test_secrets_stand_in_no_log_and_no_error(
    pair: Pair, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        issued = await issue(pair.one)
        rotated = (await administer(pair.one, "POST", f"{KEYS_PATH}/{issued['id']}/rotate", {})).json()
        refused = await administer(pair.one, "POST", KEYS_PATH, {"name": "y", "planted": "planted-secret"})
        unknown = await ask(pair.two, issued["key"] + "x")
        await administer(pair.one, "DELETE", f"{KEYS_PATH}/{issued['id']}")
    written = caplog.text + "".join(capsys.readouterr()) + refused.text + unknown.text
    for secret in (issued["key"], rotated["key"], "planted-secret", ADMIN_KEY, "passphrase-of-tests"):
        assert secret not in written
    assert unknown.json()["error"]["code"] == ErrorCode.INVALID_API_KEY
