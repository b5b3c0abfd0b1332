"""A conversation keeps what was said, however a turn ends; its commands act on it."""

import json
import os
import stat
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from ops.chat.commands import Commands
from ops.chat.conversation import Conversation, Message
from ops.chat.history import MAX_BYTES, open_history
from ops.errors import Failure
from tests.support.http_server import Answer, Serve, reply

USER = {"role": "user", "content": "question"}


class Model:
    """Answers `It ` and `was.`, in two connections if `breaks`. Keeps what was asked of it."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.breaks = breaks
        self.asked: list[tuple[str, str]] = []
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append((request.command, request.path))
        if request.command == "DELETE" or request.path == "/v1/models":
            reply(200, b'{"data": [{"id": "one", "aliases": ["uno"]}, {"id": "two"}]}')(request)
            return
        if request.command == "POST":
            self.bodies.append(json.loads(request.rfile.read(int(request.headers["Content-Length"]))))
        request.send_response(200)
        request.send_header("X-Request-Id", "abc")
        request.send_header("X-InferFlux-Resume", "/v1/requests/abc/events")
        request.end_headers()
        if request.command == "POST":
            request.wfile.write(b'id: 0\ndata: {"choices": [{"delta": {"content": "It "}}]}\n\n')
        if request.command == "GET" or not self.breaks:
            request.wfile.write(b'id: 1\ndata: {"choices": [{"delta": {"content": "was."}}]}\n\ndata: [DONE]\n\n')


def ignore(_: str) -> None:
    pass


def talk(serve: Serve, answer: Answer, *opening: Message) -> Conversation:
    return Conversation(serve(answer), opening, {"max_tokens": 8})


def commands(conversation: Conversation) -> Callable[[str], str | None]:
    return Commands(conversation, lambda: None).run


@pytest.mark.parametrize("breaks", [False, True])
def test_an_answer_is_whole_also_over_a_broken_connection(serve: Serve, breaks: bool) -> None:
    model, shown = Model(breaks=breaks), list[str]()
    conversation = talk(serve, model)
    assert conversation.say("question", shown.append, ignore)
    assert shown == ["It ", "was."]
    assert conversation.messages == [USER, {"role": "assistant", "content": "It was."}]
    assert model.bodies == [{"messages": [USER], "max_tokens": 8, "stream": True}]


def test_an_interrupted_answer_is_cancelled_and_kept_as_far_as_it_came(serve: Serve) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    model = Model()
    conversation = talk(serve, model)
    assert not conversation.say("question", interrupt, ignore)
    assert model.asked[-1] == ("DELETE", "/v1/requests/abc")
    assert conversation.messages == [USER, {"role": "assistant", "content": "It "}]


def test_a_turn_that_fails_leaves_no_trace(serve: Serve) -> None:
    conversation = talk(serve, reply(400, b'{"error": {"message": "no"}}'))
    with pytest.raises(Failure, match="no"):
        conversation.say("question", ignore, ignore)
    assert conversation.messages == []
    with pytest.raises(Failure, match="nothing was asked"):
        conversation.retry(ignore, ignore)


def test_a_question_is_answered_again_in_place_of_its_answer(serve: Serve) -> None:
    conversation = talk(serve, Model())
    conversation.say("question", ignore, ignore)
    once = list(conversation.messages)
    assert conversation.retry(ignore, ignore)
    assert conversation.messages == once


def test_the_system_message_outlives_a_reset(serve: Serve) -> None:
    conversation = talk(serve, Model(), {"role": "system", "content": "old"})
    run = commands(conversation)
    assert run("/system") == "old"
    run("/system be brief")
    conversation.say("question", ignore, ignore)
    run("/reset")
    assert conversation.messages == [{"role": "system", "content": "be brief"}]


def test_the_model_is_one_of_those_there_are(serve: Serve) -> None:
    conversation = talk(serve, Model())
    run = commands(conversation)
    run("/model two")
    assert (conversation.model, run("/model")) == ("two", "  one\n  uno\n* two")
    with pytest.raises(Failure, match="there are one, uno, two"):
        run("/model three")
    run("/model default")
    assert conversation.model is None


@pytest.mark.parametrize("line", ["/nonsense", "/reset now", "/save", "/load /absent/file"])
def test_a_command_that_cannot_be_says_why(serve: Serve, line: str) -> None:
    with pytest.raises(Failure):
        commands(talk(serve, Model()))(line)


def test_a_conversation_is_saved_for_its_user_alone_and_goes_on(serve: Serve, tmp_path: Path) -> None:
    conversation, path = talk(serve, Model()), tmp_path / "chat.json"
    run = commands(conversation)
    conversation.say("question", ignore, ignore)
    run("/model two")
    run(f"/save {path}")
    run(f"/save {path}")  # over what it saved itself
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    other = talk(serve, Model())
    commands(other)(f"/load {path}")
    assert (other.messages, other.model) == (conversation.messages, "two")
    foreign = tmp_path / "notes.json"
    foreign.write_text("{}")
    with pytest.raises(Failure, match="no saved conversation"):
        run(f"/save {foreign}")
    assert foreign.read_text() == "{}"


@pytest.mark.parametrize("text", ["no json", "{}", '[{"role": "wizard", "content": "x"}]', '[{"role": "user"}]', "7"])
def test_what_is_no_conversation_is_not_loaded(serve: Serve, tmp_path: Path, text: str) -> None:
    path = tmp_path / "chat.json"
    path.write_text(text)
    conversation = talk(serve, Model(), USER)
    with pytest.raises(Failure, match=str(path)):
        commands(conversation)(f"/load {path}")
    assert conversation.messages == [USER]


def test_a_history_is_private_and_does_not_grow_for_ever(tmp_path: Path) -> None:
    folder = tmp_path / "inferflux"
    history, problem = open_history(folder)
    path = folder / "chat_history"
    assert (problem, stat.S_IMODE(path.stat().st_mode)) == (None, 0o600)
    history.store_string("two\nlines")
    path.chmod(0o644)
    history, _ = open_history(folder)
    assert list(history.load_history_strings()) == ["two\nlines"]
    history.store_string("x" * MAX_BYTES)
    history.store_string("last")
    history, _ = open_history(folder)
    assert list(history.load_history_strings()) == ["last"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_history_that_cannot_be_kept_is_of_the_session(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    history, problem = open_history(tmp_path / "file" / "inferflux")
    assert problem is not None
    history.append_string("x")
    assert open_history(Path("~", "inferflux"))[1] is not None
    assert not os.path.exists("~")
