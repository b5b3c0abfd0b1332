"""A client that is killed leaves nothing behind: no work, no message, no subscription, no slot."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.counts import full_or
from tests.system.broker_state import QueueState, num_subscriptions, queue_state
from tests.system.stack import KEY, Stack, echo_config, fetch, running, until

CLIENT = Path(__file__).with_name("client.py")
KILLS = full_or(50, reduced=6)
SLOTS = 4
LONG_ANSWER = "word " * 400


@pytest.fixture
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stack]:
    config = echo_config(tmp_path, request.param, sequences=SLOTS)
    with running(tmp_path / "data", "--config", str(config)) as started:
        yield started


class Client:
    """A client process. What it prints tells how far its request has come."""

    def __init__(self, stack: Stack, *, stream: bool, content: str = LONG_ANSWER) -> None:
        body = {"messages": [{"role": "user", "content": content}], "stream": stream, "max_tokens": 2000}
        command = [sys.executable, "-S", "-E", str(CLIENT), str(stack.port), KEY, json.dumps(body)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.output = self.process.stdout
        assert self.output.readline() == b"sent\n"

    def wait_for_text(self) -> None:
        while b'"content":"w' not in self.output.readline():
            assert self.process.poll() is None, "ended before it was killed"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.output.close()


def busy_slots(stack: Stack) -> float:
    """Sequences in use over all workers, from the workers' families on the edge's `/metrics`."""
    return sum(
        value
        for name, value in stack.metrics().items()
        if name.startswith("inferflux_worker_slots{") and 'state="busy"' in name
    )


def check_nothing_is_left(stack: Stack, subscriptions: int) -> None:
    until(lambda: queue_state(stack) == QueueState(0, 0), "no message and no delivery is left")
    until(lambda: busy_slots(stack) == 0, "all slots are free")
    until(lambda: num_subscriptions(stack) <= subscriptions, "subscriptions are back to before")
    tokens = stack.metric_sum("inferflux_completion_tokens_total")
    time.sleep(2)  # nothing may happen in this time, and the absence of an event has no event
    assert stack.metric_sum("inferflux_completion_tokens_total") == tokens
    answer = fetch(f"{stack.url}/v1/completions", body={"model": "echo", "prompt": "still there"})
    assert answer["choices"][0]["text"] == "still there"


def warm_up(stack: Stack) -> int:
    fetch(f"{stack.url}/v1/completions", body={"model": "echo", "prompt": "warm"})
    until(lambda: queue_state(stack) == QueueState(0, 0), "the first request is settled")
    return num_subscriptions(stack)


@pytest.mark.parametrize("stack", ["echo:repeat?rate=50"], indirect=True)
def test_killed_in_decode(stack: Stack) -> None:
    subscriptions = warm_up(stack)
    for _ in range(KILLS):
        client = Client(stack, stream=True)
        client.wait_for_text()
        client.kill()
    check_nothing_is_left(stack, subscriptions)


@pytest.mark.parametrize("stack", ["echo:repeat?rate=50"], indirect=True)
def test_killed_while_queued(stack: Stack) -> None:
    subscriptions = warm_up(stack)
    holders = [Client(stack, stream=True) for _ in range(SLOTS)]
    for holder in holders:
        holder.wait_for_text()
    queued = [Client(stack, stream=True) for _ in range(KILLS)]
    until(lambda: queue_state(stack).num_messages == SLOTS + KILLS, "all are queued")
    for client in queued:
        client.kill()
    until(lambda: queue_state(stack) == QueueState(SLOTS, SLOTS), "the queued ones are withdrawn")
    for holder in holders:
        holder.kill()
    check_nothing_is_left(stack, subscriptions)


@pytest.mark.parametrize("stack", ["echo:repeat?rate=50&prefill_rate=400"], indirect=True)
def test_killed_in_prefill(stack: Stack) -> None:
    subscriptions = warm_up(stack)
    for number in range(KILLS):
        # Each begins otherwise, or it would find what the last one computed.
        client = Client(stack, stream=True, content=f"{number} {LONG_ANSWER}")
        until(lambda: queue_state(stack).num_ack_pending > 0, "a worker has it")
        client.kill()
        until(lambda: queue_state(stack) == QueueState(0, 0), "it is gone again")
    check_nothing_is_left(stack, subscriptions)


@pytest.mark.parametrize("stack", ["echo:repeat?rate=50"], indirect=True)
def test_killed_without_a_stream(stack: Stack) -> None:
    subscriptions = warm_up(stack)
    for _ in range(KILLS):
        client = Client(stack, stream=False)
        until(lambda: queue_state(stack).num_ack_pending > 0, "a worker has it")
        client.kill()
    check_nothing_is_left(stack, subscriptions)
