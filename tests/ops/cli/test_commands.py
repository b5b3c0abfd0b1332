"""Every command of `inferctl` against a running server: its exit code, what it says, and the shape of its JSON."""

import asyncio
import contextlib
import itertools
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from broker.connection import BrokerConfig, Connection
from broker.roles import Role
from broker.subjects import dlq_subject
from ops.cli.inferctl import group
from producer.edge.ids import mint_request_id
from schemas.codec import encode_request
from schemas.events import Accepted
from tests.ops.cli.command_cases import CASES, Case
from tests.ops.cli.inferctl import Done, Inferctl
from tests.support.requests import make_request
from tests.system.stack import ADMIN_KEY, Stack, fetch

FRESH = itertools.count(1)

pytestmark = [pytest.mark.nats, pytest.mark.timeout(120)]


def test_every_command_has_a_case() -> None:
    assert {case.command for case in CASES} == set(commands(group, ""))


def commands(found: click.Command, path: str) -> Iterator[str]:
    """Names of all commands that are no groups."""
    if not isinstance(found, click.Group):
        yield path
        return
    context = click.Context(found)
    for name in found.list_commands(context):
        command = found.get_command(context, name)
        assert command is not None
        yield from commands(command, f"{path} {name}".strip())


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join((*case.words, str(case.exit_code))).replace("/", ""))
def test_a_command_answers(case: Case, run: Inferctl, stack: Stack, tmp_path: Path) -> None:
    done, names = call(case, run, stack, tmp_path / "text")
    assert done.returncode == case.exit_code, done.stderr
    assert re.search(case.says.format(**names), done.stderr if case.exit_code else done.stdout), done
    if case.shape is not None:
        done, _ = call(case, run, stack, tmp_path / "json", "--json")
        assert done.returncode == 0, done.stderr
        for document in done.json_lines() if case.lines else [done.json()]:
            assert misfits(case.shape, document) == [], document


def call(case: Case, run: Inferctl, stack: Stack, folder: Path, *more: str) -> tuple[Done, dict[str, str]]:
    folder.mkdir()
    lines, slow = write_lines(folder / "lines.jsonl", "echo"), write_lines(folder / "slow.jsonl", "slow")
    names = {"fresh": f"word{next(FRESH)}", "folder": str(folder), "letter": "", "lines": str(lines)}
    names["batch"] = submit(run, lines, "--wait") if "{batch}" in repr(case) else ""
    names["running"] = submit(run, slow) if "{running}" in repr(case) else ""
    if "{letter}" in repr(case):
        names["letter"] = asyncio.run(put_aside(stack))
    environ = {"INFERCTL_API_KEY": ADMIN_KEY} if case.admin else {}
    for words in case.before:
        done = run(*(word.format(**names) for word in words), **environ)
        assert done.returncode == 0, done.stderr
    words = (*(word.format(**names) for word in case.words), *more)
    with traffic(stack) if case.traffic else contextlib.nullcontext():
        return run(*words, stdin=case.stdin, **environ), names


def write_lines(path: Path, model: str) -> Path:
    """Two calls, whose answers are as long as their prompts: `slow` needs a minute or more for one."""
    body = {"model": model, "prompt": "x" * 100}
    lines = [{"custom_id": name, "method": "POST", "url": "/v1/completions", "body": body} for name in "ab"]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def submit(run: Inferctl, path: Path, *options: str) -> str:
    done = run("batch", "submit", str(path), "--json", *options)
    assert done.returncode == 0, done.stderr
    batch_id: str = done.json()["id"]
    return batch_id


@contextlib.contextmanager
def traffic(stack: Stack) -> Iterator[None]:
    """Completions, one after the other."""
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            fetch(f"{stack.url}/v1/completions", body={"model": "echo", "prompt": "x"})

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


async def put_aside(stack: Stack) -> str:
    """A dead letter as a worker leaves it; its id."""
    request_id = mint_request_id()
    request = make_request(request_id)
    accepted = Accepted(request_id, "k_test", "completions", "echo", request.created, {}, "", None)
    headers = {"Ifx-Request-Id": request_id, "Ifx-Priority": "normal", "Ifx-Tenant": "default", "Ifx-Attempts": "3"}
    headers |= {"Ifx-Reason": "kills workers", "Ifx-Accepted": json.dumps(accepted._asdict())}
    config = BrokerConfig(stack.run["nats"]["url"], Role.WORKER, "test", stack.data_dir / "nats" / "creds")
    connection = await Connection.open(config)
    try:
        await connection.publish_acked(dlq_subject("echo", request_id), encode_request(request), headers=headers)
    finally:
        await connection.close()
    return request_id


def misfits(shape: Any, value: Any, where: str = "") -> list[str]:
    """Where a value is not of a shape: a type, some types, a list of a shape, or a dict with exactly these names.

    `...` among the names allows others.
    """
    if isinstance(shape, list):
        if not isinstance(value, list) or not value:
            return [f"{where}: not a list with something in it"]
        return [each for place, entry in enumerate(value) for each in misfits(shape[0], entry, f"{where}[{place}]")]
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return [f"{where}: not an object"]
        named = {name: kind for name, kind in shape.items() if name is not ...}
        found = [f"{where}.{name}: missing" for name in named.keys() - value.keys()]
        found += [f"{where}.{name}: not told of" for name in value.keys() - named.keys() if ... not in shape]
        for name in named.keys() & value.keys():
            found += misfits(named[name], value[name], f"{where}.{name}")
        return found
    kinds = shape if isinstance(shape, tuple) else (shape,)
    is_number_for_bool = isinstance(value, bool) and bool not in kinds and object not in kinds
    return [] if isinstance(value, kinds) and not is_number_for_bool else [f"{where}: {value!r} is not {kinds}"]
