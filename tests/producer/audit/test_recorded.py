"""What an edge records of those who call it."""

import asyncio
import hashlib
import hmac
from dataclasses import replace
from typing import Any

import pytest

from producer.audit.keys import AuditKeys
from producer.config import AuditConfig, AuditContent, AuditLevel
from schemas.policy import GuardrailsPolicy
from tests.conftest import Broker
from tests.producer.audit.test_writer import records
from tests.producer.conftest import CONFIG, READ_KEY, Edge, chat, running_edge, until_served
from tests.producer.scripted_worker import Run, ScriptedWorker
from tests.support.counts import full_or
from tests.support.waiting import until

pytestmark = pytest.mark.nats


async def recorded(broker: Broker, action: str) -> list[dict[str, Any]]:
    return [each for each in await records(broker) if each["action"] == action]


async def has_records(broker: Broker) -> bool:
    return bool(await records(broker))


async def call_with(edge: Edge, key: str, path: str = "/v1/models") -> int:
    return (await edge.client.get(path, headers={"authorization": f"Bearer {key}"})).status_code


def audited(level: AuditLevel, content: AuditContent = AuditContent.HASH) -> Any:
    return replace(CONFIG, audit=AuditConfig(level, content))


async def test_a_flood_of_bad_keys_is_a_few_records_with_the_right_number(
    broker: Broker, worker: ScriptedWorker
) -> None:
    number, at_once = full_or(10_000, reduced=1000), 50
    async with running_edge(broker) as edge:
        for start in range(0, number, at_once):
            keys = [f"sk-guess-{start + index}" for index in range(at_once)]
            assert set(await asyncio.gather(*(call_with(edge, key) for key in keys))) == {401}
    found = await recorded(broker, "auth.fail")
    # Two for each minute.
    assert len(found) <= 4
    assert sum(each["details"]["count"] for each in found) == number
    assert {(each["reason"], each["details"]["peer"]) for each in found} == {("invalid_api_key", "127.0.0.1")}
    assert "sk-guess" not in str(found)


async def test_who_lacks_a_scope_is_named(broker: Broker, worker: ScriptedWorker) -> None:
    async with running_edge(broker) as edge:
        assert await call_with(edge, READ_KEY, "/v1/admin/audit") == 403
    (found,) = await recorded(broker, "access.deny")
    assert (found["actor"], found["reason"], found["outcome"]) == ("reader", "insufficient_scope", "denied")
    assert found["target"] == "GET /v1/admin/audit"


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (AuditLevel.CHANGES, []),
        (AuditLevel.DENIALS, ["auth.fail", "request.generate:priority_not_allowed"]),
        (
            AuditLevel.REQUESTS,
            ["auth.fail", "request.generate", "request.generate:invalid_parameter",
             "request.generate:priority_not_allowed"],
        ),
    ],
)  # fmt: skip
async def test_each_level_records_more(
    broker: Broker, worker: ScriptedWorker, level: AuditLevel, expected: list[str]
) -> None:
    async with running_edge(broker, audited(level)) as edge:
        await until_served(edge)
        assert (await edge.post(chat())).status_code == 200
        assert (await edge.post(chat(temperature=99))).status_code == 400
        assert (await edge.post(chat(priority=9))).status_code == 403
        assert await call_with(edge, "nobody's") == 401
    found = {
        each["action"] + (f":{each['reason']}" if each["action"] == "request.generate" and "reason" in each else "")
        for each in await records(broker)
    }
    assert sorted(found - {"edge.start", "edge.stop"}) == expected


async def test_a_request_is_recorded_by_its_facts_and_hashes(broker: Broker, worker: ScriptedWorker) -> None:
    async with running_edge(broker, audited(AuditLevel.REQUESTS)) as edge:
        await until_served(edge)
        answer = await edge.post({"model": "echo", "prompt": "tell nobody"}, "/v1/completions")
        text = answer.json()["choices"][0]["text"]
    (found,) = await recorded(broker, "request.generate")
    assert found["request_id"] == answer.headers["x-request-id"]
    assert (found["actor"], found["tenant"], found["target"], found["outcome"]) == (
        "alice", "default", "echo", "allowed",
    )  # fmt: skip
    details, usage = found["details"], answer.json()["usage"]
    assert (details["prompt_tokens"], details["completion_tokens"]) == (
        usage["prompt_tokens"], usage["completion_tokens"],
    )  # fmt: skip
    assert details["duration_s"] >= 0
    keys = AuditKeys(CONFIG.pepper)
    assert (details["prompt_hash"], details["answer_hash"]) == (keys.hide("tell nobody"), keys.hide(text))
    # Nobody without the pepper can try prompts out.
    assert details["prompt_hash"] != hashlib.sha256(b"tell nobody").hexdigest()
    assert details["prompt_hash"] != hmac.digest(b"", b"tell nobody", "sha256").hex()
    assert "tell nobody" not in str(await records(broker))


async def test_texts_are_recorded_only_where_that_is_switched_on(broker: Broker, worker: ScriptedWorker) -> None:
    async with running_edge(broker, audited(AuditLevel.REQUESTS, AuditContent.FULL)) as edge:
        await until_served(edge)
        answer = await edge.post({"model": "echo", "prompt": "tell all"}, "/v1/completions")
        text = answer.json()["choices"][0]["text"]
        await edge.post({"model": "echo", "prompt": "no stream"}, "/v1/completions", x_inferflux_journal="off")
    open_one, hidden_one = await recorded(broker, "request.generate")
    assert (open_one["details"]["prompt"], open_one["details"]["answer"]) == ("tell all", text)
    # A request that asks for no trace in any stream gets none, whatever the setting.
    assert "no stream" not in str(hidden_one)
    assert "prompt_hash" in hidden_one["details"]


async def test_texts_can_be_left_out_altogether(broker: Broker, worker: ScriptedWorker) -> None:
    async with running_edge(broker, audited(AuditLevel.REQUESTS, AuditContent.NONE)) as edge:
        await until_served(edge)
        await edge.post(chat())
    (found,) = await recorded(broker, "request.generate")
    assert not [name for name in found["details"] if "prompt_hash" in name or "answer" in name]


async def test_requests_go_on_while_nothing_can_be_recorded(broker: Broker, worker: ScriptedWorker) -> None:
    async with running_edge(broker, audited(AuditLevel.REQUESTS)) as edge:
        await until_served(edge)
        await until(lambda: has_records(broker))
        await broker.topology.api("STREAM.DELETE.INFERFLUX_AUDIT")
        assert (await edge.post(chat())).status_code == 200
        await broker.apply()
    # It begins a new chain, and has not forgotten anything.
    found = await records(broker)
    assert [each["action"] for each in found] == ["request.generate", "edge.stop"]


async def test_what_a_guardrail_stops_is_recorded_without_its_words(broker: Broker, worker: ScriptedWorker) -> None:
    async def betray(run: Run) -> None:
        await run.finish("the", " password", " is")

    worker.script = betray
    config = replace(CONFIG, guardrails=GuardrailsPolicy(blocklist=("password",)))
    async with running_edge(broker, config) as edge:
        await until_served(edge)
        answer = (await edge.post(chat("tell"))).json()
        assert answer["choices"][0]["finish_reason"] == "content_filter"
        assert (await edge.post(chat("my password"))).json()["error"]["code"] == "content_filter"
    found = [each for each in await records(broker) if each["outcome"] == "denied"]
    assert [(each["action"], each["actor"], each["target"], each["reason"]) for each in found] == [
        ("answer.block", "alice", "echo", "blocklist"),
        ("request.generate", "alice", "echo", "content_filter"),
    ]
    assert "password" not in str(found)
