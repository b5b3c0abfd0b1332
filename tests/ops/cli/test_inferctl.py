"""`inferctl` against a running server."""

import json
import re

import pytest

from tests.ops.cli.inferctl import Inferctl
from tests.support.ports import free_port
from tests.system.stack import Stack

pytestmark = [pytest.mark.nats, pytest.mark.timeout(120)]


def test_status_and_models(run: Inferctl) -> None:
    done = run("status")
    assert (done.returncode, "  ready\n" in done.stdout.partition("model")[0]) == (0, True)
    assert re.search(r"^echo +yes +ready +echo +asked for +\d+ +8192 +quick$", done.stdout, re.MULTILINE)
    status = json.loads(run("status", "--json", "--wait", "5").stdout)
    assert (status["ready"], status["models"][0]["id"]) == (True, "echo")
    assert json.loads(run("models", "--json").stdout)["object"] == "list"


@pytest.mark.parametrize("stream", [[], ["--stream"]])
def test_completion_prints_the_text(run: Inferctl, stream: list[str]) -> None:
    done = run("completion", "--prompt", "grüße 👋 over two\nlines", "--seed", "1", "--temperature", "0", *stream)
    assert done.stdout == "grüße 👋 over two\nlines\n"
    assert done.returncode == 0


def test_completion_prints_the_body_as_json(run: Inferctl) -> None:
    body = json.loads(run("completion", "--prompt", "hello", "--max-tokens", "2", "--json").stdout)
    assert body["choices"][0] == {**body["choices"][0], "text": "he", "finish_reason": "length"}
    chunks = [
        json.loads(line) for line in run("completion", "--prompt", "hi", "--stream", "--json").stdout.splitlines()
    ]
    assert "".join(choice["text"] for chunk in chunks for choice in chunk["choices"]) == "hi"


def test_chat_takes_messages_prompt_and_system(run: Inferctl) -> None:
    arguments = ["chat", "--system", "be brief", "--message", "user:first", "--message", "assistant:yes"]
    assert run(*arguments, "--prompt", "last: one").stdout == "last: one\n"


def test_a_conversation_from_a_pipe(run: Inferctl) -> None:
    done = run("chat", "--interactive", stdin="one\n/reset\n/nonsense\n\ntwo\n")
    assert done.returncode == 0
    assert [line for line in done.stdout.splitlines() if "/" not in line] == ["one", "two"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["completion", "--prompt", "x", "--model", "absent"], "absent"),
        (["models", "--api-key", "wrong"], "API key"),
    ],
)
def test_a_refusal_is_the_servers_message_and_exit_code_1(run: Inferctl, arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert words in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["chat"], ["chat", "--message", "wizard:x"], ["completion"], ["chat", "-i", "--json"], ["status", "--port", "0"]],
)
def test_usage_is_exit_code_2(run: Inferctl, arguments: list[str]) -> None:
    assert run(*arguments).returncode == 2


def test_nothing_listens(run: Inferctl) -> None:
    port = str(free_port())
    done = run("status", INFERCTL_PORT=port)
    assert (done.returncode, done.stderr) == (
        1,
        f"error: nothing listens on http://localhost:{port}; start with make up\n",
    )


def test_there_is_no_login_where_only_keys_are_taken(run: Inferctl) -> None:
    done = run("login")
    assert (done.returncode, "API keys only" in done.stderr) == (1, True)


def test_bus_env_is_a_context_of_the_nats_command_line(run: Inferctl, stack: Stack) -> None:
    context = json.loads(run("bus", "env", "--data-dir", str(stack.data_dir)).stdout)
    assert context["url"] == stack.run["nats"]["url"]
    assert (context["user"], context["inbox_prefix"]) == ("inspector", "_INBOX_inspector")
    full = json.loads(run("bus", "env", "--data-dir", str(stack.data_dir), "--role", "inspector-full").stdout)
    assert full["user"] == "inspector-full"
    done = run("bus", "env", "--data-dir", "/absent/data")
    assert (done.returncode, "nothing runs in" in done.stderr) == (1, True)
