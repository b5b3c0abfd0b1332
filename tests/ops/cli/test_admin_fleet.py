"""`inferctl admin workers | cache | queues | oidc | routing` against a running server."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from ops.cli.inferctl import group
from ops.cli.program import main
from tests.system.stack import ADMIN_KEY, KEY, Stack, fetch, running, until

pytestmark = [pytest.mark.nats, pytest.mark.timeout(120)]

TEXT = "You are a helpful assistant who answers in one word."


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def body(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A server of these tests alone: they send its worker away."""
    with running(tmp_path_factory.mktemp("fleet"), "--model", "echo:repeat") as started:
        yield started


@pytest.fixture
def run(stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("INFERCTL_PORT", str(stack.port))
    monkeypatch.setenv("INFERCTL_API_KEY", ADMIN_KEY)

    def call(*arguments: str) -> Done:
        code = main(group, "inferctl", ["admin", *arguments])
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture
def worker(run: Run) -> str:
    """The id of the worker, once it serves and is the only one."""

    def alone() -> str | None:
        found = run("workers", "--json").body["data"]
        return found[0]["id"] if [each["state"] for each in found] == ["serving"] else None

    return until(alone, "one worker serves")


def test_a_worker_is_cordoned_and_serves_again(run: Run, stack: Stack, worker: str) -> None:
    (shown,) = run("workers", "--list", "--json").body["data"]
    assert {"id": worker, "answers": True, "supervised": True}.items() <= shown.items()
    assert {"backend": "echo", "busy": 0}.items() <= shown["models"][0].items()
    assert shown["uptime_s"] > 0
    table = run("workers")
    assert (table.code, worker in table.out, "serving" in table.out) == (0, True, True)
    try:
        done = run("workers", "--cordon", worker, "--json")
        assert (done.code, done.body["state"], done.body["models"][0]["free"]) == (0, "cordoned", 0)
        assert run("queues", "--json").body["data"][0]["workers"] == 0
        assert fetch(f"{stack.url}/v1/models")["data"][0]["ready"] is False
        assert "cordoned" in run("workers", "--show", worker).out
    finally:
        done = run("workers", "--uncordon", worker)
    assert (done.code, "serving" in done.out) == (0, True)
    until(lambda: fetch(f"{stack.url}/v1/models")["data"][0]["ready"], "it serves again")
    assert fetch(f"{stack.url}/v1/completions", body={"prompt": "x"})["choices"][0]["text"] == "x"


def test_the_cache_is_warmed_shown_and_cleared(
    run: Run, stack: Stack, worker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("cache", "--clear").code == 0
    warmed = run("cache", "--warm", TEXT, "--json").body
    (on_worker,) = warmed["data"]
    assert (warmed["model"], on_worker["worker"], on_worker["error"]) == ("echo", worker, None)
    assert on_worker["computed_tokens"] == on_worker["prompt_tokens"] > 8
    usage = fetch(f"{stack.url}/v1/completions", body={"prompt": f"{TEXT} And more."})["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] >= len(TEXT)
    caches = run("cache", "--status", "--json").body["data"]
    cache = next(each for each in caches if each["worker"] == worker)
    assert cache["cached_tokens"] == cache["pages"]["cached"] * cache["page_size"] > 0
    assert {"used", "reserved", "cached", "free"} == set(cache["pages"])
    table = run("cache", "--model", "echo", "--worker", worker)
    assert (table.code, str(cache["cached_tokens"]) in table.out) == (0, True)
    monkeypatch.setattr("sys.stdin", io.StringIO("Be brief, and answer in one word."))
    assert run("cache", "--warm", "-", "--chat").code == 0
    cleared = run("cache", "--clear", "--json").body
    assert cleared["tokens"] == sum(each["tokens"] for each in cleared["data"]) >= cache["cached_tokens"]
    assert run("cache", "--json").body["data"][0]["cached_tokens"] == 0


def test_a_drained_worker_of_up_is_started_again(run: Run, worker: str) -> None:
    done = run("workers", "--drain", worker, "--finish")
    assert (done.code, done.out) == (0, f"{worker} ends: 0 requests run to their end first; it is started again\n")

    def another() -> str | None:
        found = [each["id"] for each in run("workers", "--json").body["data"] if each["state"] == "serving"]
        return next((each for each in found if each != worker), None)

    second = until(another, "another worker serves")
    done = run("workers", "--drain", second, "--json")
    assert {"id": second, "mode": "hand_back", "starts_again": True}.items() <= done.body.items()
    until(lambda: next((each for each in [another()] if each not in (None, second)), None), "a third one serves")


def test_queues_and_requests(run: Run, worker: str) -> None:
    table = run("queues", "--list")
    assert (table.code, "echo" in table.out, "normal" in table.out) == (0, True, True)
    (queue,) = run("queues", "--model", "echo", "--json").body["data"]
    assert [each["waiting"] for each in queue["classes"]] == [0, 0, 0, 0]
    listed = run("requests", "--json")
    assert (listed.code, listed.body) == (0, {"object": "list", "data": [], "truncated": False})


def test_routing(run: Run, stack: Stack, worker: str) -> None:
    done = run("routing", "--alias", "gpt-4o-mini=echo", "--alias", "other=echo", "--default", "echo", "--json")
    assert (done.code, done.body["aliases"], done.body["default_model"]) == (
        0,
        {"gpt-4o-mini": "echo", "other": "echo"},
        "echo",
    )
    assert fetch(f"{stack.url}/v1/completions", body={"model": "other", "prompt": "x"})["model"] == "echo"
    assert "gpt-4o-mini" not in run("routing", "--remove", "gpt-4o-mini", "--no-default").out
    assert run("policy", "reset", "routing").code == 0
    assert run("routing", "--get", "--json").body["aliases"] == {}


def test_oidc(run: Run) -> None:
    changes = ("issuer=https://id.example.com", "audience=api", "algorithms=RS256,ES256", 'scope_map={"a": ["read"]}')
    done = run("oidc", *(part for each in changes for part in ("--set", each)), "--json")
    assert (done.code, done.body["policy"]["algorithms"]) == (0, ["RS256", "ES256"])
    table = run("oidc", "--get")
    assert (table.code, "https://id.example.com" in table.out, "store" in table.out) == (0, True, True)
    assert run("policy", "reset", "oidc").code == 0
    assert run("oidc", "--json").body["policy"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["workers", "--drain", "absent"], "There is no worker 'absent'"),
        (["workers", "--cordon", "absent"], "There is no worker 'absent'"),
        (["cache", "--warm", "x", "--model", "absent"], "absent"),
        (["cache", "--worker", "absent"], "There is no worker 'absent'"),
        (["queues", "--model", "absent"], "absent"),
        (["requests", "--cancel", "absent"], "No request of that id"),
        (["routing", "--alias", "x=absent"], "absent"),
        (["oidc", "--set", "issuer=http://id.example.com"], "issuer"),
    ],
)
def test_a_refusal_is_exit_code_1_and_the_servers_word(run: Run, arguments: list[str], words: str) -> None:
    done = run(*arguments)
    assert (done.code, done.out, words in done.err) == (1, "", True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["workers", "--drain", "a", "--cordon", "b"],
        ["workers", "--finish"],
        ["cache", "--status", "--clear"],
        ["cache", "--chat"],
        ["requests", "--list", "--cancel", "x"],
        ["routing", "--alias", "x"],
        ["routing", "--default", "x", "--no-default"],
        ["oidc", "--set", "leeway_s=soon"],
        ["oidc", "--get", "--set", "issuer=x"],
    ],
)
def test_usage_is_exit_code_2(run: Run, arguments: list[str]) -> None:
    assert run(*arguments).code == 2


def test_a_key_without_the_scope_is_told_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERCTL_API_KEY", KEY)
    done = run("workers")
    assert (done.code, "admin" in done.err) == (1, True)
