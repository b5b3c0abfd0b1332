"""Rego in this process beside OPA itself: the same decisions, and where they differ, how."""

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import Response

from producer.guardrails.decision import Decision
from producer.guardrails.errors import InvalidGuardrails, NoDecision
from producer.guardrails.opa_server import OpaServer
from producer.guardrails.policy_engine import PolicyEngine
from producer.guardrails.rego import DEFAULT_RULE, RegoPolicy
from tests.producer.guardrails.expressions import BUILTINS, CONDITIONS, HELPERS
from tests.producer.guardrails.opa import Opa, running_opa
from tests.producer.guardrails.real_opa import RealOpa, needs_opa
from tests.producer.guardrails.test_rego import HEAD, POLICY
from tests.support.certificates import Authority
from tests.support.counts import full_or

pytestmark = needs_opa

EXAMPLES = full_or(1000, reduced=60)
_PAGE = Path(__file__).parents[3] / "docs" / "trust" / "guardrails.md"

CHAIN = """
decision := {"allow": false, "reason": sprintf("%d words", [count(words)])} if {
    count(words) > 3
} else := {"allow": false, "reason": concat(", ", sort(banned))} if {
    count(banned) > 0
} else := {"allow": true, "max_tokens": 5} if {
    input.parameters.max_tokens > 100
    not is_member
} else := true if is_member

words := [word | some word in split(input.prompts[0].text, " "); word != ""]
banned contains lower(word) if {
    some word in words
    lower(word) in {"bad", "worse"}
}
is_member if input.identity.tenant == "members"
is_member if "admin" in input.identity.scopes
"""
CONFLICT = """
decision := true if contains(input.prompts[0].text, "a")
decision := false if contains(input.prompts[0].text, "b")
"""
REDACTING = """
default decision := false
decision := {"allow": true, "redact": texts, "replacement": input.identity.tenant} if count(texts) > 0
texts := {found | some found in regex.find_n(`[ab]+`, input.prompts[0].text, -1)}
"""
SHAPES = """
decision := input.parameters.shape
"""
FUNCTIONS = """
decision := {"allow": ok(size), "reason": kind(size)}
size := count(input.prompts[0].text)
ok(n) if n < 8
else := false
kind(n) := "none" if n == 0
kind(n) := "short" if { n > 0; n < 8 }
kind(n) := "long" if n >= 8
"""


UNDEFINED = """
default decision := {"allow": false}
decision := {"allow": true, "reason": concat(",", sort(names))} if {
    member := members[input.identity.tenant]
    not member.blocked
    every prompt in input.prompts {
        first := split(prompt.text, " ")[0]
        first != "worse"
    }
    0, "admin" in input.identity.scopes
    names := {name | some prompt in input.prompts; name := members[prompt.text].name}
}
decision := {"allow": false, "reason": second} if {
    second := input.prompts[1].text
    input.identity.tenant == "guests"
}
members := {"small": {}, "members": {"blocked": false}, "trial": {"blocked": true}, "bad": {"name": "b"}}
"""


def documented() -> str:
    found = re.search(r"```rego\n(.*?)```", _PAGE.read_text(), re.S)
    assert found is not None
    return found[1]


MODULES = {
    "documented": documented(),
    "mixed": POLICY,
    **{
        name: HEAD + rules
        for name, rules in {
            "chain": CHAIN,
            "conflict": CONFLICT,
            "redacting": REDACTING,
            "shapes": SHAPES,
            "functions": FUNCTIONS,
            "undefined": UNDEFINED,
        }.items()
    },
}

# Of the plane of characters that texts are mostly written in: beyond it the two count differently, see below.
TEXTS = st.text(st.sampled_from('abAB  éñжΩ字019.-_/,*{}\n"\\'), max_size=24) | st.sampled_from(
    ["haiku", "my secret 555-1234", "bad", "Worse Bad", "a b c d", "bad a b c d"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["allow", "reason", "redact", "max_tokens", "priority", "other"]), inner)
    ),
    max_leaves=5,
)
REQUESTS = st.fixed_dictionaries(
    {
        "identity": st.fixed_dictionaries(
            {
                "owner": TEXTS,
                "tenant": st.sampled_from(["guests", "trial", "members", "small", "default"]),
                "scopes": st.lists(st.sampled_from(["admin", "generate", "read"]), unique=True),
            }
        ),
        "parameters": st.fixed_dictionaries(
            {"max_tokens": st.sampled_from([1, 100, 101, 4096])}, optional={"shape": VALUES}
        ),
        "prompts": st.lists(st.fixed_dictionaries({"kind": st.just("text"), "text": TEXTS}), min_size=1, max_size=2),
    }
)


@contextlib.contextmanager
def both(source: str) -> Iterator[tuple[RegoPolicy, RealOpa]]:
    opa = RealOpa(source)
    try:
        yield RegoPolicy("policy.rego", source, DEFAULT_RULE, "{}"), opa
    finally:
        opa.close()


def value_of(policy: RegoPolicy, request: dict[str, Any]) -> Any:
    """The value as such; None when undefined, or when a built-in fails."""
    try:
        value = json.loads(policy._evaluator.evaluate(orjson.dumps(request).decode()))
    except RuntimeError:
        return None
    return None if value == "<undefined>" else value


def value_of_opa(opa: RealOpa, request: dict[str, Any]) -> Any:
    return json.loads(opa.answer(request)[1]).get("result")


@pytest.mark.parametrize("name", MODULES)
def test_the_same_module_decides_the_same(name: str) -> None:
    with both(MODULES[name]) as (policy, opa):

        @settings(max_examples=EXAMPLES)
        @given(REQUESTS)
        def agree(request: dict[str, Any]) -> None:
            assert asyncio.run(decision_of(policy, request)) == opa.decide(request)

        agree()


def module_of(expressions: Sequence[str]) -> str:
    """A list of their values, each in a list of its own that is empty when it is undefined."""
    values = [
        f"[true | {text}]" if text.startswith(CONDITIONS) else f"[value | value := {text}]" for text in expressions
    ]
    return HEAD + "decision := [\n" + ",\n".join(values) + "\n]\n" + HELPERS


INPUTS = st.fixed_dictionaries(
    {
        "text": TEXTS,
        "n": st.integers(-50, 50),
        "words": st.lists(TEXTS, max_size=4),
        "numbers": st.lists(st.integers(-1000, 1000) | st.sampled_from([0.5, 2.25, -1.75]), max_size=4),
    }
)


def test_builtins_give_the_same_values() -> None:
    # An evaluator has registers for some dozens.
    groups = [BUILTINS[start : start + 25] for start in range(0, len(BUILTINS), 25)]
    with contextlib.ExitStack() as stack:
        pairs = [stack.enter_context(both(module_of(group))) for group in groups]

        @settings(max_examples=EXAMPLES)
        @given(INPUTS)
        def agree(request: dict[str, Any]) -> None:
            for group, (policy, opa) in zip(groups, pairs, strict=True):
                ours, theirs = value_of(policy, request), value_of_opa(opa, request)
                both_values = zip(group, ours, theirs, strict=True)
                assert [each for each in both_values if each[1] != each[2]] == []

        agree()


# Ours, then OPA's. None is undefined, which is no decision.
DIFFERENCES: list[tuple[str, dict[str, Any], Any, Any]] = [
    ("count(input.text)", {"text": "a😀"}, 3, 2),
    ('sprintf("%d", [input.n])', {"n": -7}, "--7", "-7"),
    ('sprintf("%x", [input.text])', {"text": "ab"}, "", "6162"),
    ('sprintf("%.2f", [input.n])', {"n": 1}, "1", "%!f(int64=01)"),
    ("regex.is_valid(input.text)", {"text": "{"}, False, True),
    ("urlquery.encode(input.text)", {"text": "a*"}, "a*", "a%2A"),
    ("upper(input.text)", {"text": "ß"}, "SS", "ß"),
    ("lower(input.text)", {"text": "İ"}, "i̇", "i"),
    ("input.n + 0.1", {"n": 2**53 + 1}, 2**53, 2**53 + 2),
    ("json.marshal(input.n)", {"n": 1e-7}, "1e-7", "1e-07"),
]


@pytest.mark.parametrize(("text", "request_", "ours", "theirs"), DIFFERENCES, ids=[each[0] for each in DIFFERENCES])
def test_known_differences(text: str, request_: dict[str, Any], ours: Any, theirs: Any) -> None:
    rule = f"decision := true if {{ {text} }}" if " in " in text else f"decision := value if {{ value := {text} }}"
    with both(HEAD + rule) as (policy, opa):
        assert value_of(policy, request_) == ours
        assert value_of_opa(opa, request_) == theirs


@pytest.mark.parametrize(
    "text",
    [
        'crypto.sha256("x")',
        'crypto.hmac.sha256("x", "k")',
        'net.cidr_intersects("10.0.0.0/8", "10.1.0.0/16")',
        'net.cidr_merge(["10.0.0.0/9", "10.128.0.0/9"])',
        'regex.globs_match("a*", "ab*")',
        'strings.render_template("{{.y}}", {"y": 1})',
        "array.flatten([[1], [2]])",
        'io.jwt.decode("a.b.c")',
        "rego.metadata.rule()",
    ],
)
def test_what_opa_has_and_this_evaluator_has_not_is_refused_when_it_is_loaded(text: str) -> None:
    source = f"{HEAD}decision := value if {{ value := {text} }}"
    RealOpa(source).close()
    with pytest.raises(InvalidGuardrails, match="Unknown function"):
        RegoPolicy("policy.rego", source, DEFAULT_RULE, "{}")


async def test_asked_over_https_opa_decides_as_in_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OPA's evaluator behind its data API: undefined is an answer without a result, a conflict is 500."""
    authority = Authority(tmp_path)
    certificate = authority.issue("server")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    async with running_opa(ssl_certfile=certificate.cert, ssl_keyfile=certificate.key) as opa:
        for name in ("documented", "mixed", "conflict", "redacting"):
            engine = OpaServer(opa.url, 30.0)
            with both(MODULES[name]) as (policy, real):
                opa.answer = answers(opa, real)
                for text in ("hello", "a haiku", "my secret 555-1234", "a b", "b", "ccc"):
                    for tenant in ("default", "guests", "trial", "small"):
                        identity = {"tenant": tenant, "scopes": ()}
                        request = {"identity": identity, "prompts": [{"kind": "text", "text": text}]}
                        assert await decision_of(policy, request) == await decision_of(engine, request)
            await engine.close()


def answers(opa: Opa, real: RealOpa) -> Callable[[], Awaitable[Response]]:
    """To what was asked last."""

    async def answer() -> Response:
        status, body = real.answer(opa.asked[-1])
        return Response(body, status)

    return answer


async def decision_of(engine: PolicyEngine, request: dict[str, Any]) -> Decision | None:
    try:
        return await engine.decide(request)
    except NoDecision:
        return None
