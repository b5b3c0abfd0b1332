"""Rego in this process, as an administrator writes it."""

import asyncio
import gc
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest

from producer.guardrails.decision import Decision
from producer.guardrails.errors import InvalidGuardrails, NoDecision
from producer.guardrails.policy_engine import MAX_FILE_BYTES, PolicyEngine, open_engine
from schemas.requests import PriorityClass

HEAD = "package inferflux\nimport rego.v1\n"
POLICY = (
    HEAD
    + """
default decision := {"allow": true}
decision := {"allow": false, "reason": "no haiku"} if contains(text, "haiku")
decision := {"allow": true, "redact": ["secret", {"pattern": `\\d{3}-\\d{4}`}], "replacement": "***"} if {
    not contains(text, "haiku")
    contains(text, "secret")
}
decision := {"allow": true, "max_tokens": 7, "priority": "batch"} if input.identity.tenant == "small"
text := input.prompts[0].text
"""
)


def question(text: str = "", tenant: str = "default") -> dict[str, Any]:
    return {"identity": {"owner": "alice", "tenant": tenant, "scopes": []}, "prompts": [{"kind": "text", "text": text}]}


def policy(folder: Path, source: str, options: str = "") -> PolicyEngine:
    path = folder / "policy.rego"
    path.write_text(source)
    return open_engine(f"file://{path}{options}", 1.0)


async def test_a_policy_allows_denies_redacts_and_caps(tmp_path: Path) -> None:
    engine = policy(tmp_path, POLICY)
    assert await engine.decide(question("hello")) == Decision(allow=True)
    assert await engine.decide(question("a haiku")) == Decision(allow=False, reason="no haiku")
    decision = await engine.decide(question("my secret"))
    assert decision.redacted("my secret: 555-1234") == "my ***: ***"
    small = await engine.decide(question("hello", tenant="small"))
    assert (small.max_tokens, small.priority) == (7, PriorityClass.BATCH)
    assert await engine.decide(question("hello")) == Decision(allow=True)


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ("decision := true if input.nobody.has.it", "undefined"),
        ("decision := {} if 1 / (input.zero - 0) > 0", "undefined"),
        ('decision := {"allow": x} if x := to_number("none")', "could not be evaluated"),
        ("default decision := true\ndecision := false if to_number(input.prompts[0].text) > 3", "not be evaluated"),
        ('decision := {"allow": true} if true\ndecision := {"allow": false} if true', "could not be evaluated"),
        ('decision := "allow"', "a text"),
        ("decision := 1", "a number"),
        ("decision := [true]", "a list"),
        ('decision := {"reason": "x"}', "'allow'"),
        ('decision := {"allow": "yes"}', "'allow'"),
        ('decision := {"allow": true, "allowed": input.prompts[0].text}', "nobody knows"),
        ('decision := {"allow": true, "max_tokens": 0}', "'max_tokens'"),
        ('decision := {"allow": true, "redact": [""]}', "'redact.0'"),
        ('decision := {"allow": true, "redact": [{"pattern": "a*"}]}', "'redact.0'"),
        ('decision := {"allow": true, "priority": "urgent"}', "'priority'"),
        ("decision := count([1 | some i in numbers.range(1, 100000); i > 0])", "too many instructions"),
    ],
)
async def test_what_is_no_decision_is_none(tmp_path: Path, rules: str, why: str) -> None:
    engine = policy(tmp_path, HEAD + rules)
    for _ in range(2):
        with pytest.raises(NoDecision, match=why) as caught:
            await engine.decide(question("the prompt"))
        assert "the prompt" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (HEAD + 'decision := io.jwt.decode("x")', "line 3: Unknown function: 'io.jwt.decode'"),
        (HEAD + 'decision := no.such.builtin("x")', "Unknown function"),
        (HEAD + 'decision := http.send({"url": "http://x", "method": "get"}).body', "http.send is not available"),
        (HEAD + "decision := {", "line 3: expecting"),
        (HEAD + "other := 1", "not a valid rule path"),
        ("package elsewhere\ndecision := true", "not a valid rule path"),
        ("package inferflux\ndecision = true { input.x }", "`if` keyword"),
        ("", "policy.rego"),
    ],
)
def test_a_policy_that_cannot_work_is_refused_when_it_is_loaded(tmp_path: Path, source: str, why: str) -> None:
    with pytest.raises(InvalidGuardrails) as caught:
        policy(tmp_path, source)
    assert why in str(caught.value) and "\n" not in str(caught.value) and caught.value.field == "opa_endpoint"


async def test_a_comment_or_text_about_http_send_is_none(tmp_path: Path) -> None:
    engine = policy(tmp_path, HEAD + '# http.send(x)\ndecision := {"allow": false, "reason": "BuiltinCall http.send"}')
    assert (await engine.decide(question())).reason == "BuiltinCall http.send"


@pytest.mark.parametrize(
    "body",
    [
        "user := data.users[input.identity.owner]; not user.blocked",
        "name := input.identity.absent",
        "some owner in [input.identity.owner]; user := data.users[owner]",
        "count([1 | user := data.users[input.identity.owner]]) == 1",
        "every owner in [input.identity.owner] { user := data.users[owner] }",
        'some 1, "alice" in [input.identity.owner]',
    ],
)
async def test_what_is_undefined_ends_its_rule(tmp_path: Path, body: str) -> None:
    """Also where it is only given a name: a rule that allows must not go on behind it."""
    (tmp_path / "data.json").write_text('{"users": {"bob": {}}}')
    source = f'{HEAD}default decision := false\ndecision := {{"allow": true}} if {{ {body} }}'
    engine = policy(tmp_path, source, "?data=data.json")
    assert await engine.decide(question("hello")) == Decision(allow=False)


async def test_another_rule_can_be_named(tmp_path: Path) -> None:
    engine = policy(tmp_path, "package a.b\nallow := true", "#data.a.b.allow")
    assert await engine.decide(question()) == Decision(allow=True)
    with pytest.raises(InvalidGuardrails, match="what follows #"):
        policy(tmp_path, "package a.b\nallow := true", "#a b")


async def test_ten_megabytes_of_data_are_read_and_more_are_not(tmp_path: Path) -> None:
    users = [f"user-{number:07d}-{'x' * 20}" for number in range(250_000)]
    data = tmp_path / "data.json"
    data.write_bytes(orjson.dumps({"users": dict.fromkeys(users, True)}))
    assert 9 * 2**20 < data.stat().st_size <= MAX_FILE_BYTES
    engine = policy(tmp_path, HEAD + 'decision := {"allow": data.users[input.prompts[0].text]}', "?data=data.json")
    assert await engine.decide(question(users[-1])) == Decision(allow=True)
    with pytest.raises(NoDecision):
        await engine.decide(question("nobody"))
    data.write_bytes(b" " * (MAX_FILE_BYTES + 1))
    with pytest.raises(InvalidGuardrails, match="larger than 10 MiB"):
        policy(tmp_path, HEAD + "decision := true", "?data=data.json")


@pytest.mark.parametrize(
    ("endpoint", "why"),
    [
        ("file:///absent/policy.rego", "No such file"),
        ("file://policy.rego", "three slashes"),
        ("policy.rego", "must begin with"),
        ("ftp://host/policy.rego", "must begin with"),
        ("file:///etc/hostname", "must end with"),
        ("file:///x.rego?input=1", "no other option"),
        ("http://", "needs a host"),
        ("http://user:secret-word@host/v1/data/x", "neither a password"),
        ("http://host:port/v1/data/x", "not a URL"),
    ],
)
def test_an_endpoint_that_is_none_is_refused(endpoint: str, why: str) -> None:
    with pytest.raises(InvalidGuardrails, match=why) as caught:
        open_engine(endpoint, 1.0)
    assert "secret-word" not in str(caught.value)


async def test_a_fixed_decision(tmp_path: Path) -> None:
    path = tmp_path / "deny.json"
    path.write_text('{"allow": false, "reason": "closed"}')
    engine = open_engine(f"file://{path}", 1.0)
    assert await engine.decide(question()) == Decision(allow=False, reason="closed")
    for content, why in (("{", "not JSON"), ('{"alow": true}', "opa_endpoint"), ("null", "undefined")):
        path.write_text(content)
        with pytest.raises(InvalidGuardrails, match=why):
            open_engine(f"file://{path}", 1.0)


@pytest.mark.filterwarnings("ignore")
def test_a_machine_in_another_thread_is_no_decision_and_no_crash(tmp_path: Path) -> None:
    """The library panics then, past every handler of Exception."""
    engine = policy(tmp_path, POLICY)
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            asyncio.run(engine.decide(question()))
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert [type(error) for error in caught] == [NoDecision]


def test_a_policy_collected_in_another_thread_leaves_its_machine_to_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", complaints.append)
    cycle: list[Any] = [policy(tmp_path, POLICY)]
    cycle.append(cycle)
    del cycle
    collector = threading.Thread(target=gc.collect)
    collector.start()
    collector.join()
    policy(tmp_path, POLICY)
    assert complaints == []
