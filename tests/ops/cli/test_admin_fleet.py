"""`inferctl admin workers | cache | requests | queues` against a running server."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from ops.cli.inferctl import group
from ops.cli.program import main
from tests.system.stack import ADMIN_KEY, Stack

pytestmark = [pytest.mark.nats, pytest.mark.timeout(120)]


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def body(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture
def run(stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("INFERCTL_PORT", str(stack.port))
    monkeypatch.setenv("INFERCTL_API_KEY", ADMIN_KEY)

    def call(*arguments: str) -> Done:
        code = main(group, "inferctl", ["admin", *arguments])
        return Done(code, *capsys.readouterr())

    return call


def worker_of(run: Run) -> dict[str, Any]:
    (worker,) = run("workers", "--json").body["data"]
    return dict(worker)


def test_workers(run: Run) -> None:
    worker = worker_of(run)
    assert worker["state"] == "serving"
    table = run("workers")
    assert (table.code, worker["id"] in table.out) == (0, True)
    print(worker, table.out)
    print(run("cache").out, run("cache", "--json").out)
    print(run("queues").out, run("queues", "--json").out)
    print(run("requests").out, run("requests", "--json").out)
    print(run("cache", "--warm", "a long text that is more than eight tokens").out)
    print(run("cache").out)
    print(run("cache", "--clear"))
    print(run("workers", "--cordon", worker["id"], "--json").out)
    print(run("workers", "--uncordon", worker["id"], "--json").out)
    print(run("workers", "--drain", worker["id"]))
    assert 0
