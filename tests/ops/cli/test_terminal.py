"""`inferctl chat --interactive` and `inferctl top` as they are used: in a terminal, on a running server."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.ops.cli.inferctl import Inferctl, users_environ
from tests.ops.cli.terminal import CTRL_C, CTRL_D, UP, Terminal, inferctl_in_terminal, pasted
from tests.system.stack import Stack, until

pytestmark = [pytest.mark.nats, pytest.mark.timeout(45)]

# At a token a second it is under way for minutes.
LONG = "x" * 300


@pytest.fixture
def environ(tmp_path: Path, stack: Stack) -> dict[str, str]:
    return users_environ(tmp_path, stack)


def ask(terminal: Terminal, keys: str, answer: str) -> None:
    """Type at a prompt, and wait for an answer on a line of its own."""
    terminal.type(keys)
    terminal.until(rf"[\r\n]{answer}\r\n")
    terminal.prompt()


def saved(terminal: Terminal, path: Path) -> list[dict[str, str]]:
    """The messages so far."""
    terminal.type(f"/save {path}\r")
    terminal.until("saved to")
    terminal.prompt()
    messages: list[dict[str, str]] = json.loads(path.read_text())["messages"]
    return messages


def said(messages: list[dict[str, str]]) -> list[str]:
    return [message["content"] for message in messages if message["role"] == "user"]


def test_a_chat_and_the_next_one(environ: dict[str, str], tmp_path: Path) -> None:
    with inferctl_in_terminal(environ, "chat", "-i") as terminal:
        terminal.until("/help lists the commands")
        terminal.prompt()
        ask(terminal, "hello\r", "hello")
        ask(terminal, "one\\\rtwo\r", "one\r\ntwo")
        ask(terminal, '"""\rthree\r\rfour"""\r', "three\r\n\r\nfour")
        ask(terminal, pasted("five\nsix") + "\r", "five\r\nsix")
        messages = saved(terminal, tmp_path / "first.json")
        assert said(messages) == ["hello", "one\ntwo", "three\n\nfour", "five\nsix"]
        assert [message["content"] for message in messages if message["role"] == "assistant"] == said(messages)
        terminal.type(CTRL_C)
        terminal.until("Ctrl-D or /exit leaves")
        terminal.prompt()
        terminal.type(f"dropped{CTRL_C}{CTRL_D}")
        assert terminal.end() == 0
    history = tmp_path / "config" / "inferflux" / "chat_history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    with inferctl_in_terminal(environ, "chat", "-i") as terminal:
        terminal.prompt()
        ask(terminal, f"{UP}{UP}\r", "five\r\nsix")  # behind the /save
        assert said(saved(terminal, tmp_path / "second.json")) == ["five\nsix"]
        terminal.type("/exit\r")
        assert terminal.end() == 0


def test_ctrl_c_ends_the_answer_and_its_work_and_not_the_program(
    environ: dict[str, str], stack: Stack, tmp_path: Path
) -> None:
    with inferctl_in_terminal(environ, "chat", "-i", "--model", "slow", "--system", "be brief") as terminal:
        terminal.prompt()
        terminal.type(f"{LONG}\r")
        terminal.until(r"\n\rx")
        until(lambda: busy(stack) == 1, "the worker says so")
        terminal.type(CTRL_C)
        terminal.until(r"\(stopped\)\r\n")
        terminal.prompt()
        until(lambda: busy(stack) == 0, "the worker stops")
        messages = saved(terminal, tmp_path / "chat.json")
        assert [message["role"] for message in messages] == ["system", "user", "assistant"]
        assert messages[2]["content"] in LONG

        terminal.type("/mo\tqu\t\r")  # completed twice, with what the server has
        terminal.until("quick answers from here on")
        terminal.prompt()
        terminal.type("/nonsense\r")
        terminal.until("/nonsense is unknown")
        terminal.prompt()
        terminal.type("/reset\r")
        terminal.prompt()
        ask(terminal, "short\r", "short")
        ask(terminal, "/retry\r", "short")
        assert [message["content"] for message in saved(terminal, tmp_path / "chat.json")] == [
            "be brief",
            *2 * ["short"],
        ]
        terminal.type(CTRL_D)
        assert terminal.end() == 0


def busy(stack: Stack) -> float:
    samples = stack.metrics()
    return sum(
        value
        for name, value in samples.items()
        if name.startswith("inferflux_worker_slots{") and 'model="slow"' in name and 'state="busy"' in name
    )


def test_top_shows_what_runs_until_q(environ: dict[str, str], run: Inferctl) -> None:
    with inferctl_in_terminal(environ, "chat", "--model", "slow", "--prompt", LONG, "--stream") as client:
        client.until("x")
        with inferctl_in_terminal(environ, "top", "--interval", "0.2") as terminal:
            terminal.until(r"slow +normal +0 +1 ")
            terminal.until(r"slow +echo +1/\d+")
            terminal.until("q leaves")
            terminal.type("zq")
            assert terminal.end() == 0
        report: dict[str, Any] = run("top", "--once", "--interval", "0.1", "--json").json()
        assert [each["slots_used"] for each in report["workers"] if each["model"] == "slow"] == [1]
        client.type(CTRL_C)
        assert client.end() == 130


def test_progress_is_shown_on_a_terminal_only(environ: dict[str, str], run: Inferctl) -> None:
    with inferctl_in_terminal(environ, "completion", "--prompt", LONG, "--model", "slow") as terminal:
        terminal.until("waiting for the model")
        terminal.type(CTRL_C)
        assert terminal.end() == 130
    assert run("completion", "--prompt", "x").stderr == ""


def test_what_an_answer_holds_does_not_reach_the_terminal_as_a_command(environ: dict[str, str]) -> None:
    with inferctl_in_terminal(environ, "completion", "--prompt", "a\x1b]0;title\x07b") as terminal:
        terminal.until("a�]0;title�b")
        assert terminal.end() == 0
