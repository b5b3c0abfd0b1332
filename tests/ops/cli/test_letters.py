"""Dead letters as `inferctl bus dlq` shows them."""

import json

import pytest

from broker.dead_letters import DeadLetter
from ops.cli.letters import details, lines, summary
from schemas.events import Accepted
from schemas.requests import ChatMessage, ChatPrompt, Prompt, TextPrompt, TokenPrompt
from tests.support.requests import make_request

ACCEPTED = Accepted("r1", "k_test", "completions", "echo", 1_700_000_000, {}, "", None)
HEADERS = {
    "Ifx-Priority": "low",
    "Ifx-Tenant": "acme",
    "Ifx-Reason": "kills workers",
    "Ifx-Attempts": "3",
    "Ifx-Accepted": json.dumps(ACCEPTED._asdict()),
}
CHAT = ChatPrompt((ChatMessage("system", "be brief"), ChatMessage("user", "a secret")))


def letter(headers: dict[str, str]) -> DeadLetter:
    return DeadLetter("r1", "echo", 7, 0.0, headers, b"")


def test_a_line_of_the_list() -> None:
    assert summary(letter(HEADERS)) == {
        "id": "r1",
        "time": "1970-01-01T00:00:00Z",
        "model": "echo",
        "priority": "low",
        "owner": "k_test",
        "tenant": "acme",
        "reason": "kills workers",
        "attempts": 3,
    }


@pytest.mark.parametrize("headers", [{}, {"Ifx-Accepted": "{}", "Ifx-Attempts": "many"}, {"Ifx-Accepted": "[1]"}])
def test_what_a_letter_does_not_tell_is_left_open(headers: dict[str, str]) -> None:
    found = summary(letter(headers))
    assert {name for name, value in found.items() if value is not None} == {"id", "time", "model"}


@pytest.mark.parametrize(
    ("prompt", "size"),
    [
        (TextPrompt("a secret"), {"kind": "text", "characters": 8}),
        (CHAT, {"kind": "chat", "messages": 2, "characters": 16}),
        (TokenPrompt((1, 2, 3)), {"kind": "tokens", "tokens": 3}),
    ],
)
def test_of_a_prompt_only_the_size_is_shown_unless_asked_for(prompt: Prompt, size: dict[str, object]) -> None:
    facts = details(letter(HEADERS), make_request(prompt=prompt), with_text=False)
    assert facts["prompt"] == size
    assert "secret" not in "\n".join(lines(facts))


def test_for_people_there_is_one_fact_a_line() -> None:
    request = make_request(prompt=CHAT, deadline_ms=1_700_000_060_000)
    shown = lines(details(letter(HEADERS), request, with_text=True))
    assert {"id: r1", "owner: k_test", "timeout_s: 60.0", "parameters.max_tokens: 16"} <= set(shown)
    assert "prompt.messages.2.content: a secret" in shown
    assert not any(line.startswith(("labels", "parameters.stop")) for line in shown)
