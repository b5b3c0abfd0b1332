"""The audit record of whole processes: written by several at a time, killed in the middle, verified by a command."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.counts import full_or
from tests.support.ports import free_port
from tests.system.beside import Beside
from tests.system.stack import ADMIN_KEY, KEY, Stack, fetch, running, until

pytestmark = [pytest.mark.nats, pytest.mark.slow, pytest.mark.timeout(180)]

KILLS = full_or(6, reduced=2)
CALLERS = 4
EVERYTHING = {"INFERFLUX_AUDIT__LEVEL": "requests"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("audit")
    env = {**EVERYTHING, "INFERFLUX_AUDIT_LOG": str(folder / "up.jsonl")}
    with running(folder / "data", "--backend", "echo", env=env) as started:
        yield started


def inferctl(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "INFERCTL_PORT": str(stack.port), "INFERCTL_API_KEY": ADMIN_KEY}
    command = [sys.executable, "-m", "ops.cli.inferctl", "admin", "audit", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def report(stack: Stack, *arguments: str) -> dict[str, Any]:
    done = inferctl(stack, "verify", "--json", *arguments)
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (0 if found["ok"] else 1)
    return found


@contextlib.contextmanager
def callers(*urls: str) -> Iterator[list[int]]:
    """Some that ask each edge for as long as they may, whatever becomes of it; how often each was answered."""
    stop, answered = threading.Event(), [0] * (CALLERS * len(urls))

    def call(number: int) -> None:
        while not stop.is_set():
            body = {"model": "echo", "prompt": "x", "max_tokens": 2}
            try:
                fetch(f"{urls[number % len(urls)]}/v1/completions", body=body)
                answered[number] += 1
            except urllib.error.HTTPError as error:
                error.close()
            except (OSError, http.client.HTTPException):
                pass  # its edge was killed, before the answer or in the middle of it

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(answered))]
    for thread in threads:
        thread.start()
    try:
        yield answered
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def until_all_answered(answered: list[int], times: int) -> None:
    least = [number + times for number in answered]
    while any(number < enough for number, enough in zip(answered, least, strict=True)):
        time.sleep(0.02)


def test_two_edges_write_at_once_one_is_killed_and_all_of_it_verifies(stack: Stack) -> None:
    log = stack.data_dir.parent / "two.jsonl"
    options = ["--port", str(free_port())]
    for _ in range(KILLS):
        edge = Beside(stack, "edge", "two", *options, env={"INFERFLUX_AUDIT_LOG": str(log)})
        with callers(stack.url, edge.url) as answered:
            until_all_answered(answered, 10)
            edge.kill()
    edge = Beside(stack, "edge", "two", *options, env={"INFERFLUX_AUDIT_LOG": str(log)})
    with callers(stack.url, edge.url) as answered:
        until_all_answered(answered, 5)
    edge.stop()
    found = report(stack)
    assert (found["problems"], found["ok"]) == ([], True)
    chains = {each["writer"]: each for each in found["chains"]}
    assert len(chains) == 2
    assert chains["two"]["first"] == 1
    assert chains["two"]["closed"]
    # What its log lacked when it was killed came in with its successor.
    logged = report(stack, "--file", str(log))
    assert (logged["problems"], logged["kind"]) == ([], "log")
    assert logged["records"] == chains["two"]["last"]
    assert report(stack, "--file", str(stack.data_dir.parent / "up.jsonl"))["ok"]


def test_an_export_is_verified_with_and_without_the_server(stack: Stack, tmp_path: Path) -> None:
    fetch(f"{stack.url}/v1/completions", body={"model": "echo", "prompt": "x", "max_tokens": 2})
    requests = f"{stack.url}/v1/admin/audit?action=request"
    until(lambda: fetch(requests, key=ADMIN_KEY)["data"] != [], "the request is recorded")
    path = tmp_path / "export.jsonl"
    done = inferctl(stack, "export", "--file", str(path))
    assert done.returncode == 0, done.stderr
    assert path.stat().st_mode & 0o777 == 0o600
    assert inferctl(stack, "export", "--file", str(path)).returncode == 1
    pepper = str(stack.data_dir / "pepper")
    for options in ([], ["--pepper-file", pepper]):
        found = report(stack, "--file", str(path), *options)
        assert (found["ok"], found["kind"]) == (True, "export")
    content = path.read_bytes()
    place = content.rindex(b'"action":') + 12
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    bad_line = content.count(b"\n", 0, place) + 1
    for options in ([], ["--pepper-file", pepper]):
        done = inferctl(stack, "verify", "--file", str(path), *options)
        assert done.returncode == 1
        assert f"line {bad_line}" in done.stdout
        assert done.stdout.endswith("NOT ok\n")
    assert inferctl(stack, "export").stdout.encode()[:40] == content[:40]


def test_the_list_is_for_people_and_for_tools(stack: Stack) -> None:
    for _ in range(3):
        fetch(f"{stack.url}/v1/completions", body={"model": "echo", "prompt": "x", "max_tokens": 2})
    requests = f"{stack.url}/v1/admin/audit?action=request"
    until(lambda: len(fetch(requests, key=ADMIN_KEY)["data"]) >= 3, "three requests are recorded")
    listed = json.loads(inferctl(stack, "list", "--json", "--limit", "2").stdout)
    assert (len(listed["data"]), listed["has_more"]) == (2, True)
    done = inferctl(stack, "list", "--action", "request", "--limit", "1")
    assert "request.generate" in done.stdout
    assert "There are more: --after" in done.stderr
    refused = inferctl(stack, "list", "--since", "yesterday")
    assert (refused.returncode, "'since'" in refused.stderr) == (1, True)
    assert KEY not in done.stdout
