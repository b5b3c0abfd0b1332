"""Prompts that kill their workers are put aside; an operator looks at them, drops one, and queues the other again."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from broker.connection import BrokerConfig, Connection
from broker.records import get_record
from broker.roles import Role
from broker.subjects import STREAM_TOKENS
from schemas.codec import decode_event
from schemas.events import Finished
from tests.system.broker_state import QueueState, queue_state
from tests.system.stack import ADMIN_KEY, KEY, Stack, echo_config, running, until

WORKERS = 2
QUESTION = "why does this kill you?"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    config = echo_config(tmp_path, "echo:repeat?die_on=kill&prefill_rate=2000")
    with running(tmp_path / "data", "--config", str(config), "--workers", str(WORKERS)) as started:
        yield started


def test_what_was_given_up_is_listed_shown_dropped_and_queued_again(stack: Stack) -> None:
    to_drop, to_retry = asyncio.run(ask_what_kills(stack))
    until(lambda: stack.metric_sum("inferflux_dlq_total") >= 1, "a worker counts what it put aside")
    until(lambda: queue_state(stack) == QueueState(0, 0), "nothing is left in the queue")

    listed = {each["id"]: each for each in dlq_json(stack, "list")["data"]}
    assert listed.keys() == {to_drop, to_retry}
    assert (listed[to_retry]["model"], listed[to_retry]["priority"]) == ("echo", "normal")
    assert listed[to_retry]["attempts"] == listed[to_drop]["attempts"] == 3
    assert "ended before anything came of it" in listed[to_retry]["reason"]
    assert to_drop in dlq(stack, "list").stdout
    check_shown(stack, to_retry)

    assert dlq(stack, "drop", to_drop).returncode == 0
    assert [each["id"] for each in from_elsewhere(stack)["data"]] == [to_retry]
    done = dlq(stack, "retry", to_drop)
    assert (done.returncode, done.stderr) == (1, f"error: there is no dead letter {to_drop}\n")

    mend(stack)
    new_id = dlq(stack, "retry", f"chatcmpl-{to_retry}").stdout.strip()
    assert new_id != to_retry
    assert dlq_json(stack, "list")["data"] == []
    until(lambda: queue_state(stack) == QueueState(0, 0), "it has been answered")
    assert "".join(asyncio.run(end_of(stack, new_id)).pieces) == QUESTION
    # The one who asked finds it from any edge, a stranger does not.
    assert cancel(stack, new_id, KEY) == 200
    assert cancel(stack, new_id, ADMIN_KEY) == 404


async def ask_what_kills(stack: Stack) -> tuple[str, str]:
    """Ids of a completion and of a streamed chat that were both given up."""
    async with openai.AsyncOpenAI(base_url=f"{stack.url}/v1", api_key=KEY, max_retries=0, timeout=120) as client:

        async def complete() -> str:
            with pytest.raises(openai.InternalServerError) as raised:
                await client.completions.create(model="echo", prompt="this kills too")
            assert raised.value.code == "poisoned"
            return str(raised.value.request_id)

        async def chat() -> str:
            answering = client.chat.completions.with_raw_response.create(
                model="echo",
                messages=[{"role": "user", "content": QUESTION}],
                stream=True,
                temperature=0.5,
                # The status is not held for the outcome, so that the refusal comes as an event.
                extra_headers={"X-InferFlux-Queue-Updates": "on"},
            )
            answer = await answering
            with pytest.raises(openai.APIError) as raised:
                async for _ in answer.parse():
                    pass
            assert raised.value.code == "poisoned"
            return str(answer.headers["x-request-id"])

        completed, chatted = await asyncio.gather(complete(), chat())
        return completed, chatted


def check_shown(stack: Stack, request_id: str) -> None:
    shown = dlq_json(stack, "show", request_id)
    assert shown["parameters"]["temperature"] == 0.5
    assert shown["endpoint"] == "chat.completions"
    assert shown["headers"]["Ifx-Request-Id"] == request_id
    assert QUESTION not in json.dumps(shown)
    with_text = dlq(stack, "show", request_id, "--text").stdout
    assert QUESTION in with_text
    assert f"owner: {shown['owner']}\n" in with_text


def mend(stack: Stack) -> None:
    """The model can bear such prompts from now on: its workers come back with another configuration."""
    echo_config(stack.data_dir.parent, "echo:repeat?prefill_rate=2000")
    before = {worker["pid"] for worker in stack.run["workers"]}
    for pid in before:
        os.kill(pid, signal.SIGKILL)

    def have_come_back() -> bool:
        now = {worker["pid"] for worker in stack.run["workers"]}
        return len(now) == WORKERS and not now & before

    until(have_come_back, "new workers")


def dlq(stack: Stack, *arguments: str, where: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    where = where or ("--data-dir", str(stack.data_dir))
    command = [sys.executable, "-m", "ops.cli.inferctl", "bus", "dlq", *arguments, *where]
    return subprocess.run(command, capture_output=True, text=True, env=stack.env, timeout=60, check=False)


def dlq_json(stack: Stack, *arguments: str, where: tuple[str, ...] = ()) -> Any:
    done = dlq(stack, *arguments, "--json", where=where)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def from_elsewhere(stack: Stack) -> Any:
    """The list as somebody sees it who knows only the broker's address and has its logins."""
    credentials = str(stack.data_dir / "nats" / "creds")
    return dlq_json(stack, "list", where=("--nats-url", stack.run["nats"]["url"], "--nats-credentials", credentials))


async def end_of(stack: Stack, request_id: str) -> Finished:
    login = stack.data_dir / "nats" / "creds"
    connection = await Connection.open(BrokerConfig(stack.run["nats"]["url"], Role.INSPECTOR_FULL, "test", login))
    try:
        query = {"last_by_subj": f"inferflux.tok.*.{request_id}.ev"}
        record = await get_record(connection, STREAM_TOKENS, query)
    finally:
        await connection.close()
    assert record is not None
    event = decode_event(record.payload)
    assert isinstance(event, Finished)
    return event


def cancel(stack: Stack, request_id: str, key: str) -> int:
    """The status of a DELETE, which looks for the request in the journals of all edges."""
    request = urllib.request.Request(f"{stack.url}/v1/requests/{request_id}", method="DELETE")
    request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
