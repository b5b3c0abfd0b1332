"""Guardrails as a user meets them: a running InferFlux with the echo model, administered with `inferctl`."""

import json
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from typing import Any

import pytest

from tests.system.stack import ADMIN_KEY, Stack, fetch, running

pytestmark = [pytest.mark.nats, pytest.mark.timeout(120)]

WORD = "xylograph"
SAID = f"a story of the {WORD} and its end"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("guardrails")
    models = {
        "repeat": {"backend": "echo", "source": "echo:repeat", "default": True},
        "random": {"backend": "echo", "source": "echo:random"},
    }
    config = folder / "server.yaml"
    # Token ids pass unread, so that the model gets to repeat what a text may not ask for.
    config.write_text(json.dumps({"models": models, "guardrails": {"blocklist": [WORD], "fail_open": True}}))
    with running(folder / "data", "--config", str(config)) as started:
        yield started


def inferctl(stack: Stack, *arguments: str) -> str:
    command = [sys.executable, "-m", "ops.cli.inferctl", *arguments, "--port", str(stack.port)]
    environ = {**stack.env, "INFERCTL_API_KEY": ADMIN_KEY}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def streamed(stack: Stack, path: str, body: dict[str, Any]) -> tuple[str, str]:
    """Text and reason of an answer, both ways alike."""
    whole = fetch(f"{stack.url}{path}", body=body)["choices"][0]
    text, reason = "", ""
    for line in fetch(f"{stack.url}{path}", body={**body, "stream": True}).splitlines():
        if line.startswith("data: {"):
            (choice,) = json.loads(line.removeprefix("data: "))["choices"]
            text += choice["delta"].get("content", "") if "delta" in choice else choice["text"]
            reason = choice["finish_reason"] or reason
    assert (text, reason) == (
        whole["message"]["content"] if "message" in whole else whole["text"],
        whole["finish_reason"],
    )
    return text, reason


def refused(stack: Stack, path: str, body: dict[str, Any]) -> str:
    with pytest.raises(urllib.error.HTTPError) as error:
        fetch(f"{stack.url}{path}", body=body)
    assert error.value.code == 400
    return error.value.read().decode()


def test_guardrails_from_the_prompt_to_the_answer(stack: Stack) -> None:
    for path, body in (
        ("/v1/completions", {"prompt": SAID.upper()}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": SAID}]}),
    ):
        error = refused(stack, path, body)
        assert json.loads(error)["error"]["code"] == "content_filter" and WORD not in error.lower()
    # The echo model's tokens are bytes: the word comes a letter at a time.
    ids = list(f"<{SAID}>".encode())
    assert streamed(stack, "/v1/completions", {"prompt": ids, "max_tokens": 60}) == (
        "<a story of the ",
        "content_filter",
    )
    harmless = f"{WORD}s are xylophones, naïve 東京"
    body = {"messages": [{"role": "user", "content": harmless}], "max_tokens": 200}
    assert streamed(stack, "/v1/chat/completions", body) == (harmless, "stop")

    shown = json.loads(inferctl(stack, "admin", "guardrails", "--set", "", "--pattern", "(?i)[n-z]", "--json"))
    assert (shown["source"], shown["blocklist"], shown["patterns"]) == ("store", [], ["(?i)[n-z]"])
    body = {"model": "random", "messages": [{"role": "user", "content": "12"}], "seed": 4, "max_tokens": 200}
    text, reason = streamed(stack, "/v1/chat/completions", body)
    assert reason == "content_filter" and not any(each in "nopqrstuvwxyz" for each in text.lower())

    inferctl(stack, "admin", "guardrails", "--clear")
    body = {"messages": [{"role": "user", "content": SAID}], "max_tokens": 200}
    assert streamed(stack, "/v1/chat/completions", body) == (SAID, "stop")
    assert "fail_open" in inferctl(stack, "admin", "guardrails", "--list")
    assert stack.metric_sum("inferflux_guardrail_blocks_total") == 6
    assert WORD not in stack.log_path.read_text().lower()
