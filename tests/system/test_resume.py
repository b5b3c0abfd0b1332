"""An edge is killed or drained under its streams: every answer is read on through another edge, from any token."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx2
import pytest

from tests.support.counts import full_or
from tests.support.waiting import until as eventually
from tests.system.beside import Beside, edge_beside
from tests.system.broker_state import QueueState, queue_state
from tests.system.journals import Journal, open_journals
from tests.system.stack import ADMIN_KEY, KEY, Stack, running, until

STREAMS = 10
ROUNDS = full_or(10, reduced=1)
RATE = 80
# Two to four bytes a character.
SENTENCE = "東京の朝は静かだ。🙂🇨🇭 naïve façade, Ελλάδα; 완료! "
STOP = "停止🛑"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("resume")
    models = {
        "repeat": {"backend": "echo", "source": f"echo:repeat?rate={RATE}", "default": True, "sequences": STREAMS},
        "random": {"backend": "echo", "source": f"echo:random?rate={RATE}", "sequences": STREAMS},
    }
    config = folder / "server.yaml"
    # Answers are compared with those of other calls, down to the count of cached tokens.
    config.write_text(json.dumps({"models": models, "runtime": {"prefix_cache": {"enabled": False}}}))
    with running(folder / "data", "--config", str(config)) as started:
        yield started


class Event(NamedTuple):
    """`id` as on the wire; `data` without what differs between two calls of the same body."""

    id: str | None
    data: Any

    @property
    def text(self) -> str:
        choices = self.data.get("choices", ()) if isinstance(self.data, dict) else ()
        return "".join(each["delta"].get("content", "") if "delta" in each else each["text"] for each in choices)

    @property
    def error(self) -> dict[str, Any] | None:
        return self.data.get("error") if isinstance(self.data, dict) else None

    @property
    def is_end(self) -> bool:
        """The finish, the usage, or the last line."""
        return self.data == "[DONE]" or not self.data["choices"] or bool(self.data["choices"][0]["finish_reason"])


def parse(stream: bytes) -> list[Event]:
    """The whole events of a stream; comments and an event that was cut are left out."""
    events = []
    *blocks, _ = stream.decode(errors="replace").split("\n\n")
    for block in blocks:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        data = fields["data"]
        if data != "[DONE]":
            data = {name: value for name, value in json.loads(data).items() if name not in ("id", "created")}
        events.append(Event(fields.get("id"), data))
    return events


class Uncut:
    """What an undisturbed stream of the same body says, and says behind each token, as its journal has it."""

    def __init__(self, stream: bytes, journal: Journal) -> None:
        events = parse(stream)
        self.text = "".join(event.text for event in events)
        self._pieces = journal.fold.pieces
        self._end = [event for event in events if event.is_end]
        self.ids = [int(event.id) for event in events if event.id is not None]
        self.num_tokens = max(self.ids) + 1
        assert self.text == "".join(self._pieces)

    @property
    def hidden(self) -> list[int]:
        """Tokens that let no text out, as those in the middle of a character."""
        return [token for token in range(self.num_tokens) if not self._pieces[token]]

    def sent_with(self, place: int) -> str:
        # Not what the stream had said with it: on a busy machine one event brings several tokens.
        return "".join(self._pieces[: place + 1])

    def check_rest(self, place: int, stream: bytes) -> None:
        """That a resumed stream says exactly what follows the token `place`, piece by piece."""
        events = parse(stream)
        assert [event for event in events if event.is_end] == self._end
        sent = self.sent_with(place)
        for event in events:
            sent += event.text
            if event.id is not None:
                assert sent == self.sent_with(int(event.id)), (place, event)
        assert sent == self.text


class Order(NamedTuple):
    """One call of a round. Half of them sample and stop at a string; chats and completions, in two models."""

    number: int

    @property
    def path(self) -> str:
        return "/v1/completions" if self.number % 2 else "/v1/chat/completions"

    @property
    def body(self) -> dict[str, Any]:
        prompt = f"{self.number} {SENTENCE}{STOP} and what is never said"
        body: dict[str, Any] = {"max_tokens": 110, "stream": True, "temperature": 0.0, "seed": self.number}
        body |= {"prompt": prompt} if self.number % 2 else {"messages": [{"role": "user", "content": prompt}]}
        if self.number % 4 >= 2:
            body |= {"temperature": 0.9, "stop": [STOP, "~"]}
        if self.number % 3 == 0:
            body |= {"stream_options": {"include_usage": True}}
        if self.number % 5 < 2:
            body |= {"model": "random", "ignore_eos": True}
        return body


class Cut(NamedTuple):
    """What came of a stream before its edge went away."""

    request_id: str
    stream: bytes

    @property
    def place(self) -> int | None:
        ids = [int(event.id) for event in parse(self.stream) if event.id is not None]
        return max(ids, default=None)


class Reading:
    """Streams through one edge until it goes away. `on_events` is told how many events each piece brings."""

    def __init__(self, url: str, on_events: Callable[[int], None]) -> None:
        self._client = client_of(url)
        self._on_events = on_events

    async def read(self, order: Order, **headers: str) -> Cut:
        stream, request_id = b"", ""
        try:
            async with self._client.stream("POST", order.path, json=order.body, headers=headers) as answer:
                assert answer.status_code == 200
                request_id = answer.headers["x-inferflux-resume"].split("/")[3]
                async for piece in answer.aiter_bytes():
                    stream += piece
                    self._on_events(piece.count(b"\n\n"))
        except httpx2.TransportError:
            pass
        return Cut(request_id, stream)

    async def close(self) -> None:
        await self._client.aclose()


def client_of(url: str, key: str = KEY) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=httpx2.Timeout(60), trust_env=False
    )


async def resume(client: httpx2.AsyncClient, request_id: str, place: int | None) -> httpx2.Response:
    headers = {} if place is None else {"last-event-id": str(place)}
    return await client.get(f"/v1/requests/{request_id}/events", headers=headers)


async def uncut_streams(stack: Stack) -> dict[Order, Uncut]:
    async with client_of(stack.url) as client, open_journals(stack) as journals:

        async def ask(order: Order) -> Uncut:
            # With a key its journal stays although its end was delivered.
            answer = await client.post(
                order.path, json=order.body, headers={"idempotency-key": f"uncut-{order.number}"}
            )
            return Uncut(answer.content, await journals.read(answer.headers["x-inferflux-resume"].split("/")[3]))

        orders = [Order(number) for number in range(STREAMS)]
        return dict(zip(orders, await asyncio.gather(*map(ask, orders)), strict=True))


@pytest.fixture(scope="module")
def uncut(stack: Stack) -> dict[Order, Uncut]:
    found = asyncio.run(uncut_streams(stack))
    # The places below are worth something only if some lie between the bytes of a character.
    assert sum(len(each.hidden) for each in found.values()) > 20 * STREAMS
    return found


async def cut_off(edge: Beside, orders: list[Order], kill_after: int, how: signal.Signals, key: str) -> list[Cut]:
    """Start all, and end their edge when so many events have arrived. Those with odd numbers keep their journals."""
    num_events = 0

    def on_events(count: int) -> None:
        nonlocal num_events
        is_early = num_events < kill_after
        num_events += count
        if is_early and num_events >= kill_after:
            edge.send(how)

    reading = Reading(edge.url, on_events)
    headers = [{"idempotency-key": f"{key}-{order.number}"} if order.number % 2 else {} for order in orders]
    cuts = await asyncio.gather(*(reading.read(order, **each) for order, each in zip(orders, headers, strict=True)))
    await reading.close()
    return cuts


async def check_resumed(stack: Stack, cuts: dict[Order, Cut], uncut: dict[Order, Uncut], chances: random.Random) -> int:
    """Resume each where it broke, those with a key at random tokens as well; the number of places."""
    places = [(order, cut.place) for order, cut in cuts.items() if cut.request_id]
    async with client_of(stack.url) as client, client_of(stack.url, ADMIN_KEY) as stranger:
        for cut in cuts.values():
            refused = await resume(stranger, cut.request_id or "none", cut.place)
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "request_not_found")
        for order, _ in list(places):
            if order.number % 2:
                places += [
                    (order, chances.choice(uncut[order].hidden or [0])),
                    (order, chances.randrange(uncut[order].num_tokens)),
                ]
        answers = await asyncio.gather(*(resume(client, cuts[order].request_id, place) for order, place in places))
        for (order, place), answer in zip(places, answers, strict=True):
            assert answer.status_code == 200, answer.text
            uncut[order].check_rest(-1 if place is None else place, answer.content)
        for order, cut in cuts.items():
            if cut.request_id and not order.number % 2:
                await until_gone(client, cut.request_id)
    return len(places)


async def until_gone(client: httpx2.AsyncClient, request_id: str) -> None:
    """Its end was delivered, so its journal is dropped, although the edge that owned it is dead."""
    await eventually(lambda: is_gone(client, request_id))


async def is_gone(client: httpx2.AsyncClient, request_id: str) -> bool:
    return (await resume(client, request_id, None)).status_code == 410


def test_streams_of_a_killed_edge_go_on_through_another(stack: Stack, uncut: dict[Order, Uncut]) -> None:
    num_places = 0
    for number in range(ROUNDS):
        chances = random.Random(number)
        with edge_beside(stack, f"doomed-{number}") as edge:
            # Early enough that most have not ended.
            num_events = sum(len(each.ids) for each in uncut.values())
            kill_after = chances.randrange(STREAMS, num_events * 6 // 10)
            cuts = asyncio.run(cut_off(edge, list(uncut), kill_after, signal.SIGKILL, f"round-{number}"))
            assert edge.process.wait() == -signal.SIGKILL
        broken = {order: cut for order, cut in zip(uncut, cuts, strict=True) if b"[DONE]" not in cut.stream}
        assert len(broken) >= STREAMS // 2
        for order, cut in broken.items():
            sent = "".join(event.text for event in parse(cut.stream))
            assert sent == uncut[order].sent_with(-1 if cut.place is None else cut.place)
        num_places += asyncio.run(check_resumed(stack, broken, uncut, chances))
        until(lambda: queue_state(stack) == QueueState(0, 0), "everything is settled")
    assert num_places >= full_or(100, reduced=10)


async def whole_answer(edge: Beside) -> httpx2.Response:
    async with client_of(edge.url) as client:
        return await client.post("/v1/completions", json={"prompt": SENTENCE * 3, "max_tokens": 250})


async def drain(edge: Beside, orders: list[Order]) -> tuple[list[Cut], httpx2.Response]:
    whole = asyncio.create_task(whole_answer(edge))
    cuts = await cut_off(edge, orders, 10 * STREAMS, signal.SIGTERM, "drained")
    return cuts, await whole


async def rest_of_whole(stack: Stack, refusal: httpx2.Response) -> str:
    async with client_of(stack.url) as client:
        answer = await client.get(refusal.headers["x-inferflux-resume"])
    return "".join(event.text for event in parse(answer.content))


def test_streams_of_a_drained_edge_are_told_and_go_on_through_another(stack: Stack, uncut: dict[Order, Uncut]) -> None:
    with edge_beside(stack, "leaving", env={"INFERFLUX_SERVER__DRAIN_TIMEOUT_S": "0.3"}) as edge:
        cuts, refusal = asyncio.run(drain(edge, list(uncut)))
        assert edge.process.wait() == 0
    broken = {order: cut for order, cut in zip(uncut, cuts, strict=True) if b"[DONE]" not in cut.stream}
    assert len(broken) >= STREAMS // 2
    for cut in broken.values():
        error = parse(cut.stream)[-1].error
        assert error is not None
        assert (error["code"], error["last_event_id"]) == ("broker_unavailable", str(cut.place))
        assert error["resume_url"] == f"/v1/requests/{cut.request_id}/events"
    assert (refusal.status_code, refusal.json()["error"]["last_event_id"]) == (503, None)
    asyncio.run(check_resumed(stack, broken, uncut, random.Random(1)))
    assert asyncio.run(rest_of_whole(stack, refusal)) == SENTENCE * 3
    until(lambda: queue_state(stack) == QueueState(0, 0), "everything is settled")


def test_inferctl_reads_on_when_its_edge_is_killed(stack: Stack) -> None:
    command = [sys.executable, "-m", "ops.cli.inferctl", "completion", "--stream", "--port", str(stack.port)]
    with subprocess.Popen(
        [*command, "--api-key", KEY, "--prompt", SENTENCE * 2, "--max-tokens", "250"], stdout=subprocess.PIPE
    ) as inferctl:
        assert inferctl.stdout is not None
        said = inferctl.stdout.read(10)
        # `up` starts another on the same port.
        os.kill(stack.run["edge"]["pid"], signal.SIGKILL)
        said += inferctl.stdout.read()
    assert inferctl.returncode == 0
    assert said.decode() == f"{SENTENCE * 2}\n"
    until(stack.is_ready, "the stack has an edge again")
