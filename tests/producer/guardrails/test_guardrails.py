"""Guardrails on a real edge: prompts that never reach the queue, answers that end before anything forbidden is out."""

import json
import threading
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from broker.audit_stream import AuditStream
from broker.records import read_records
from broker.subjects import STREAM_REQUESTS, STREAM_TOKENS, journal
from producer.audit.audit import Audit
from producer.edge.background import Background
from producer.edge.ids import derive_request_id
from producer.edge.output_filter import make_filter
from producer.guardrails.blocklist import Blocklist
from producer.guardrails.guardrails import Guardrails
from producer.metrics import EdgeMetrics
from producer.policy.effective import lay_over
from schemas.codec import decode_event, encode_event
from schemas.events import Accepted, Cancelled
from schemas.policy import GuardrailsPolicy
from schemas.requests import ChatPrompt, Identity, PriorityClass
from tests.conftest import Broker
from tests.producer.conftest import ADMIN_KEY, CONFIG, Edge, chat, running_edge, until_served
from tests.producer.guardrails.opa import running_opa
from tests.producer.scripted_worker import Run, ScriptedWorker
from tests.producer.test_leaving import events_until
from tests.producer.test_stream import events_of, text_of
from tests.support.waiting import until

pytestmark = pytest.mark.nats

WORD = "Xylograph"
# For a policy that has something to say, on a machine that has other things to do.
_PATIENT_S = 20.0
RULES = GuardrailsPolicy(blocklist=("xylograph", "deep sea"), patterns=(r"\b\d{3}-\d{4}\b",))
ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}


@pytest.fixture
async def edge(broker: Broker, worker: ScriptedWorker) -> AsyncIterator[Edge]:
    async with running_edge(broker, replace(CONFIG, guardrails=RULES)) as edge:
        await until_served(edge)
        yield edge


async def put(edge: Edge, **change: Any) -> dict[str, Any]:
    answer = await edge.client.put("/v1/admin/guardrails", json=change, headers=ADMIN)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    return shown


async def messages(broker: Broker) -> int:
    """How many requests ever entered the queue."""
    info = await broker.topology.api(f"STREAM.INFO.{STREAM_REQUESTS}")
    return int(info["state"]["last_seq"])


def error_of(answer: Any) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": f"a {WORD}!"}]}, "messages"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "system", "content": "the deep \n  SEA"}, {"role": "user", "content": "hello"}]},
            "messages",
        ),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "assistant", "content": "ｘｙｌｏｇｒａｐｈ"}, {"role": "user", "content": "on"}]},
            "messages",
        ),
        ("/v1/chat/completions", {"messages": [{"role": "user", "name": WORD, "content": "hello"}]}, "messages"),
        ("/v1/completions", {"prompt": ["fine", "call 555-1234"]}, "prompt"),
        ("/v1/completions", {"prompt": ["x" * 9000, "y" * 9000, "z" * 9000 + f" {WORD}"]}, "prompt"),
    ],
)
async def test_a_forbidden_prompt_is_refused_and_nothing_of_it_goes_anywhere(
    edge: Edge, broker: Broker, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str],
    path: str, body: dict[str, Any], param: str, stream: bool,
) -> None:  # fmt: skip
    before = await messages(broker)
    answer = await edge.post({"model": "echo", "stream": stream, **body}, path)
    assert error_of(answer) == (400, "content_filter", param)
    assert await messages(broker) == before
    told = answer.text + caplog.text + "".join(capfd.readouterr())
    for secret in (WORD.lower(), "deep", "555-1234", "ｘｙｌｏ"):
        assert secret not in told.lower()
    metrics = (await edge.client.get(edge.address.metrics_url)).text
    assert "inferflux_guardrail_blocks_total 1.0" in metrics


async def test_words_that_only_contain_one_pass(edge: Edge) -> None:
    text = "xylographs in a deep seam, 5551234"
    assert (await edge.post(chat(text))).json()["choices"][0]["message"]["content"] == text


async def test_token_ids_cannot_be_read_and_are_refused_or_passed(edge: Edge, worker: ScriptedWorker) -> None:
    body = {"model": "echo", "prompt": [1, 2, 3]}
    assert error_of(await edge.post(body, "/v1/completions")) == (400, "unsupported_parameter", "prompt")
    await put(edge, fail_open=True)
    assert (await edge.post(body, "/v1/completions")).json()["choices"][0]["text"] == "1 2 3"


async def says_it(run: Run) -> None:
    await run.say("about", " a", " x", "ylog", "raph", " and", " then")
    await run.cancelled.wait()
    await run.lease.ack()


@pytest.mark.parametrize("journal", ["on", "off"])
@pytest.mark.parametrize(("path", "field"), [("/v1/chat/completions", "message"), ("/v1/completions", "text")])
async def test_an_answer_ends_before_it_and_is_not_generated_further(
    edge: Edge, broker: Broker, worker: ScriptedWorker, path: str, field: str, journal: str
) -> None:
    worker.script = says_it
    body: dict[str, Any] = chat() if "chat" in path else {"model": "echo", "prompt": "go"}
    headers = {"X-InferFlux-Journal": journal}
    events = events_of((await edge.post({**body, "stream": True}, path, **headers)).content)
    assert text_of(events) == "about a "
    assert events[-2][1]["choices"][0]["finish_reason"] == "content_filter"
    await worker.runs[-1].cancelled.wait()
    whole = (await edge.post(body, path, **headers)).json()["choices"][0]
    assert (whole["message"]["content"] if field == "message" else whole["text"]) == "about a "
    assert whole["finish_reason"] == "content_filter"
    # Nor is a whole answer computed to its end, which nobody would be told.
    await worker.runs[-1].cancelled.wait()
    await events_until(broker, Cancelled("filtered"))


async def test_an_answer_is_cut_alike_from_every_place(edge: Edge, broker: Broker, worker: ScriptedWorker) -> None:
    """Also at an edge that took no part in it so far."""

    async def says_and_ends(run: Run) -> None:
        await run.say("ok", " deep", " s", "ee", " deep", " sea", "!", " more")
        await run.finish()

    worker.script = says_and_ends
    other_config = replace(CONFIG, edge_id="e2", guardrails=RULES)
    async with running_edge(broker, other_config) as other:
        await until_served(other)
        first = await edge.post(chat(stream=True), X_InferFlux_On_Disconnect="continue", Idempotency_Key="k")
        events = events_of(first.content)
        assert text_of(events) == "ok deep see "
        url = first.headers["x-inferflux-resume"]
        for place in range(6):
            sent = "".join(
                choice["delta"].get("content", "")
                for event_id, event in events
                if event_id is not None and int(event_id) <= place and isinstance(event, dict)
                for choice in event["choices"]
            )
            for reader in (edge, other):
                rest = await reader.client.get(url, headers={"last-event-id": str(place)})
                assert rest.status_code == 200, rest.text
                resumed = events_of(rest.content)
                assert sent + text_of(resumed) == "ok deep see "
                assert resumed[-2][1]["choices"][0]["finish_reason"] == "content_filter"


async def test_what_is_held_back_comes_at_the_end(edge: Edge, worker: ScriptedWorker) -> None:
    async def ends_open(run: Run) -> None:
        await run.say("into the", " deep", " se")
        await run.finish("")

    worker.script = ends_open
    assert text_of(events_of((await edge.post(chat(stream=True))).content)) == "into the deep se"


async def test_without_rules_for_texts_nothing_stands_in_the_way_of_tokens(broker: Broker) -> None:
    audit = Audit(AuditStream(broker.edge), CONFIG.audit, CONFIG.pepper, "e9", lambda lost: None)
    guardrails = Guardrails(EdgeMetrics(CollectorRegistry()), Background(), audit)
    factories = (guardrails.make_filter,)
    assert make_filter(factories, Identity("alice"), "echo") is None
    guardrails.learn(lay_over(replace(CONFIG, guardrails=RULES), None))
    first = make_filter(factories, Identity("alice"), "echo")
    assert first is not None
    guardrails.learn(lay_over(CONFIG, None))
    assert make_filter(factories, Identity("alice"), "echo") is None
    # What has begun keeps its rules.
    assert first.feed(0, f"a {WORD}.").ended is not None


async def test_administrators_change_them_while_all_runs(edge: Edge, worker: ScriptedWorker) -> None:
    shown = (await edge.client.get("/v1/admin/guardrails", headers=ADMIN)).json()
    assert (shown["source"], shown["blocklist"]) == ("file", list(RULES.blocklist))
    assert (await put(edge, blocklist=["new word"]))["patterns"] == list(RULES.patterns)
    assert error_of(await edge.post(chat("a New  Word")))[1] == "content_filter"
    assert (await edge.post(chat(WORD))).status_code == 200
    shown = await put(edge, blocklist=[], patterns=[])
    assert (shown["source"], shown["blocklist"]) == ("store", [])
    assert (await edge.post(chat("new word 555-1234"))).status_code == 200


@pytest.mark.parametrize(
    ("change", "param", "why"),
    [
        ({"patterns": ["ok", "("]}, "patterns", "patterns[1]"),
        ({"patterns": "x"}, "patterns", "list"),
        ({"blocklist": ["\u200b"]}, "blocklist", "blocklist[0]"),
        ({"blocklist": [1]}, "blocklist.0", "string"),
        ({"opa_endpoint": "file:///absent.rego"}, "opa_endpoint", "No such file"),
        ({"opa_endpoint": "gopher://x"}, "opa_endpoint", "must begin"),
        ({"opa_timeout_s": 0}, "opa_timeout_s", "greater than 0"),
        ({"fail_open": "yes"}, "fail_open", "boolean"),
        ({"words": []}, "words", "blocklist, patterns"),
    ],
)
async def test_a_change_that_cannot_be_used_changes_nothing(
    edge: Edge, change: dict[str, Any], param: str | None, why: str
) -> None:
    answer = await edge.client.put("/v1/admin/guardrails", json=change, headers=ADMIN)
    assert answer.status_code == 400 and why in answer.text and answer.json()["error"]["param"] == param
    shown = (await edge.client.get("/v1/admin/guardrails", headers=ADMIN)).json()
    assert shown["source"] == "file"


async def test_a_policy_denies_redacts_caps_and_lowers(edge: Edge, worker: ScriptedWorker, tmp_path: Path) -> None:
    rego = tmp_path / "policy.rego"
    rego.write_text("""package inferflux
import rego.v1
default decision := {"allow": true}
decision := {"allow": false, "reason": "not for bob"} if input.identity.owner == "bob"
decision := {"allow": true, "redact": ["secret"], "max_tokens": 3, "priority": "low"} if {
    input.identity.owner == "alice"
    input.model == "echo"
    contains(input.prompts[0].messages[_].content, "secret")
}
""")
    await put(edge, opa_endpoint=f"file://{rego}")
    answer = await edge.post(chat("my secret is one two"))
    assert answer.json()["choices"][0]["message"]["content"] == "my [redacted] is"
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    assert answer.json()["service_tier"] == "flex" and answer.headers["x-inferflux-priority"] == "low"
    request = worker.runs[-1].request
    assert isinstance(request.prompt, ChatPrompt) and "secret" not in request.prompt.messages[0].content
    assert (request.sampling.max_tokens, request.priority) == (3, PriorityClass.LOW)
    await edge.post(chat("my secret", max_tokens=2))
    assert worker.runs[-1].request.sampling.max_tokens == 2
    denied = await edge.post(chat("hello"), authorization="Bearer other-key")
    assert error_of(denied) == (403, "policy_denied", None) and "not for bob" in denied.text
    assert denied.json()["error"]["type"] == "permission_error"


async def test_a_policy_that_gives_no_decision_refuses_unless_failures_pass(
    edge: Edge, broker: Broker, worker: ScriptedWorker, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_opa() as opa:
        await put(edge, opa_endpoint=opa.url, opa_timeout_s=_PATIENT_S)
        assert (await edge.post(chat("allowed"))).status_code == 200
        asked = opa.asked[-1]
        assert asked["identity"] == {"owner": "alice", "tenant": "default", "scopes": ["generate", "read"]}
        assert asked["prompts"][0]["messages"] == [{"role": "user", "content": "allowed", "name": None}]
        assert "test-key" not in json.dumps(opa.asked)
        before = await messages(broker)
        for number, (content, status) in enumerate([(b"", 500), (b"<", 200), (b"{}", 200)]):
            opa.reply(content, status)
            answer = await edge.post(chat(f"question {number}"))
            assert error_of(answer) == (503, "policy_unavailable", None) and answer.headers["retry-after"] == "1"
        opa.hang()
        await put(edge, opa_timeout_s=0.2)
        assert error_of(await edge.post(chat("question again")))[1] == "policy_unavailable"
        assert await messages(broker) == before
        await put(edge, fail_open=True)
        assert (await edge.post(chat("question again"))).status_code == 200
        opa.decide(False)
        await put(edge, opa_timeout_s=_PATIENT_S)
        assert error_of(await edge.post(chat("no question")))[1] == "policy_denied"
        metrics = (await edge.client.get(edge.address.metrics_url)).text
        for outcome, count in (("failed", 4), ("passed", 1), ("deny", 1), ("allow", 1)):
            assert f'inferflux_guardrail_decisions_total{{outcome="{outcome}"}} {count}.0' in metrics
    assert "question" not in caplog.text


async def test_rules_that_another_edge_stored_and_this_one_cannot_use_refuse_all(
    edge: Edge, broker: Broker, tmp_path: Path
) -> None:
    rego = tmp_path / "only-here.rego"
    rego.write_text('package inferflux\ndecision := {"allow": true}')
    await put(edge, opa_endpoint=f"file://{rego}")
    rego.unlink()
    async with running_edge(broker, replace(CONFIG, edge_id="e2")) as other:
        await until_served(other)
        assert error_of(await other.post(chat("hello")))[1] == "policy_unavailable"
        assert (await edge.post(chat("hello"))).status_code == 200
        await put(other, opa_endpoint=None)

        async def is_served() -> bool:
            return (await other.post(chat("hello"))).status_code == 200

        await until(is_served)


async def test_a_call_whose_edge_died_before_it_was_queued_is_judged_by_who_queues_it(
    edge: Edge, broker: Broker, worker: ScriptedWorker, tmp_path: Path
) -> None:
    """What its edge had changed in the prompt died with it."""
    body = chat("my secret")
    await edge.post(body, Idempotency_Key="like this")
    heads = await read_records(broker.edge, STREAM_TOKENS, "inferflux.tok.*.*.head", is_complete=bool)
    head = decode_event(heads[0].payload)
    assert isinstance(head, Accepted)
    for key in ("k1", "k2"):
        orphan = head._replace(request_id=derive_request_id(head.owner, key, 0), idempotency_key=key)
        await broker.edge.publish_acked(journal("dead", orphan.request_id).head, encode_event(orphan))
    decision = tmp_path / "decision.json"
    decision.write_text('{"allow": true, "redact": ["secret"]}')
    await put(edge, opa_endpoint=f"file://{decision}")
    answer = await edge.post(body, Idempotency_Key="k1")
    assert answer.json()["choices"][0]["message"]["content"] == "my [redacted]"
    await put(edge, blocklist=["secret"])
    assert error_of(await edge.post(body, Idempotency_Key="k2"))[1] == "content_filter"
    assert len(worker.runs) == 2


async def test_many_phrases_are_made_ready_beside_the_loop_and_once(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []

    def noted(phrases: Iterable[str]) -> Blocklist:
        threads.append(threading.current_thread())
        return Blocklist(phrases)

    monkeypatch.setattr("producer.guardrails.text_rules.Blocklist", noted)
    await put(edge, blocklist=[f"phrase number {number}" for number in range(10_000)])
    assert error_of(await edge.post(chat("a phrase number 9999 in it")))[1] == "content_filter"
    assert len(threads) == 1 and threads[0] is not threading.main_thread()
    await put(edge, fail_open=True)
    assert len(threads) == 1
