"""Admission, stage by stage."""

import asyncio
import time
from dataclasses import replace

import pytest

from broker.work_queue import Look, QueueDepth
from producer.edge.admission import Admission, admit
from producer.edge.demand import Demand
from producer.edge.models import Models
from producer.edge.queue_view import QueueView
from producer.edge.rates import ServiceRates
from producer.edge.retry_after import Line, RetryAfter
from producer.edge.stages.identity import check_priority, check_scope
from producer.edge.stages.limits import most_tokens
from producer.edge.stages.model import KnownModel, LiveWorker, check_template
from producer.edge.stages.queue import QueueRoom
from producer.edge.stages.size import estimate_size, fewest_tokens
from producer.edge.translate import Limits, chat_plan, completion_plan
from producer.edge.waiting import Waiting
from producer.limits.sizes import PromptSizes
from schemas.control import ModelCard, ServedModel, WorkerAdvert
from schemas.errors import ErrorCode, ServingError
from schemas.requests import Endpoint, Grants, Identity, PriorityClass, TextPrompt, TokenPrompt
from tests.producer.hand_fed import HandFedView, make_call

LIMITS = Limits(64, 100, 5, lambda: 7)
IDENTITY = Identity("alice", scopes=("generate",), grants=Grants(ceiling=PriorityClass.HIGH))
CARD = ModelCard(id="m", source="echo", default=True, created=1, queue_max=2, aliases=("alias",))
SERVED = ServedModel(
    id="m",
    backend="echo",
    reason="",
    fingerprint="f",
    context=10,
    slots=2,
    max_token_bytes=4,
    bytes_per_token=2.0,
    has_chat_template=True,
)


def admission(text: str = "hi", **values: object) -> Admission:
    plan = chat_plan({"messages": [{"role": "user", "content": text}], **values}, LIMITS)
    return Admission(IDENTITY, plan, card=CARD, serving=[SERVED], prompt_tokens=[1])


def prompts(number: int) -> Admission:
    plan = completion_plan({"prompt": ["a"] * number}, LIMITS)
    return Admission(IDENTITY, plan, CARD, [SERVED], prompt_tokens=[1] * number)


async def refusal(stage: object, admission: Admission) -> ServingError:
    with pytest.raises(ServingError) as refused:
        await stage(admission)  # type: ignore[operator]
    return refused.value


class FakeRegistry:
    """A registry as it looks to readers."""

    def __init__(self, card: ModelCard | None = CARD, serving: tuple[ServedModel, ...] = (SERVED,)) -> None:
        self.models = {card.id: card} if card else {}
        self.workers = {
            "w1": WorkerAdvert(id="w1", host="", pid=1, version="", models=serving, free_slots=1),
            "w2": WorkerAdvert(id="w2", host="", pid=1, version="", models=serving, free_slots=1, draining=True),
        }

    def resolve(self, name: str | None) -> ModelCard | None:
        return next((card for card in self.models.values() if name in (None, card.id, *card.aliases)), None)

    def serving(self, model_id: str) -> list[ServedModel]:
        return [served for served in self.workers["w1"].models if served.id == model_id]


def queue_room(waiting: Waiting | None = None, **depths: QueueDepth) -> QueueRoom:
    """For a fleet of two slots with an empty queue, or as given by class."""

    async def look(model: str, priority: PriorityClass, *, asked_after: float = 0.0) -> Look:
        return Look(time.monotonic(), depths.get(priority, QueueDepth(0, 0)), 0, 0)

    waiting = waiting or Waiting("e1")
    return QueueRoom(QueueView(look, waiting), waiting, RetryAfter(ServiceRates(lambda model: 2)))


async def test_stages_run_in_order_until_one_refuses() -> None:
    seen = []

    async def first(admission: Admission) -> None:
        seen.append("first")

    async def second(admission: Admission) -> None:
        seen.append("second")
        raise ServingError(ErrorCode.RATE_LIMITED, "no")

    async def third(admission: Admission) -> None:
        seen.append("third")

    with pytest.raises(ServingError):
        await admit(admission(), [first, second, third])
    assert seen == ["first", "second"]


async def test_scope_and_priority() -> None:
    await check_scope(admission())
    reader = replace(IDENTITY, scopes=("read",))
    asked = admission()
    asked.identity = reader
    assert (await refusal(check_scope, asked)).code is ErrorCode.INSUFFICIENT_SCOPE
    asked = admission(service_tier="priority")
    await check_priority(asked)
    asked.identity = Identity("bob", scopes=("generate",))
    assert (await refusal(check_priority, asked)).param == "service_tier"


@pytest.mark.parametrize("name", [None, "m", "alias"])
async def test_a_known_model_is_resolved(name: str | None) -> None:
    asked = admission(model=name)
    asked.card, asked.serving = None, ()
    await KnownModel(Models(FakeRegistry()))(asked)
    assert asked.model is CARD
    assert list(asked.serving) == [SERVED]


async def test_unknown_and_forbidden_models() -> None:
    stage = KnownModel(Models(FakeRegistry()))
    assert (await refusal(stage, admission(model="nope"))).code is ErrorCode.MODEL_NOT_FOUND
    asked = admission(model="m")
    asked.identity = replace(IDENTITY, grants=Grants(models=("other*",)))
    assert (await refusal(stage, asked)).code is ErrorCode.MODEL_NOT_ALLOWED


async def test_a_missing_worker_refuses_or_queues_and_is_demand() -> None:
    demand = Demand()
    stage = LiveWorker(demand, Models(FakeRegistry()))
    await stage(admission())
    asked = admission()
    asked.serving = ()
    error = await refusal(stage, asked)
    assert (error.code, error.status) == (ErrorCode.NO_WORKER, 503)
    assert error.retry_after_s and demand.num_refused("m") == 1
    asked.card = CARD.model_copy(update={"no_worker": "queue"})
    await stage(asked)


async def test_chat_needs_a_template_somewhere() -> None:
    bare = SERVED.model_copy(update={"has_chat_template": False})
    asked = admission()
    asked.serving = [bare, SERVED]
    await check_template(asked)
    asked.serving = [bare]
    assert (await refusal(check_template, asked)).code is ErrorCode.NO_CHAT_TEMPLATE
    asked.plan = completion_plan({"prompt": "x"}, LIMITS)
    await check_template(asked)


async def test_only_what_certainly_cannot_fit_is_refused() -> None:
    await estimate_size(admission("x" * 36))
    error = await refusal(estimate_size, admission("x" * 37))
    assert (error.code, error.param) == (ErrorCode.CONTEXT_LENGTH_EXCEEDED, "messages")
    larger = admission("x" * 37)
    larger.serving = [SERVED, SERVED.model_copy(update={"context": 11})]
    await estimate_size(larger)
    unknown = admission("x" * 10**6)
    unknown.serving = ()
    await estimate_size(unknown)
    tokens = Admission(IDENTITY, completion_plan({"prompt": [1] * 10}, LIMITS), CARD, [SERVED])
    assert (await refusal(estimate_size, tokens)).param == "prompt"


async def test_the_estimate_uses_the_measured_mean() -> None:
    asked = admission("x" * 20)
    await estimate_size(asked)
    assert asked.prompt_tokens == [10]
    asked.serving = ()
    await estimate_size(asked)
    assert asked.prompt_tokens == [5]
    empty = admission("")
    await estimate_size(empty)
    assert empty.prompt_tokens == [1]
    assert fewest_tokens(TextPrompt("é" * 4), 4) == 2
    assert fewest_tokens(TokenPrompt((1, 2, 3)), 4) == 3


async def test_a_queue_has_room_for_what_waits_and_what_can_start() -> None:
    await queue_room()(admission())
    await queue_room(normal=QueueDepth(1, 2))(admission())
    # Three wait, but two slots are free: two of them are about to start.
    await queue_room(normal=QueueDepth(3, 0))(admission())
    error = await refusal(queue_room(normal=QueueDepth(2, 1), high=QueueDepth(0, 1)), admission())
    assert (error.code, error.status) == (ErrorCode.QUEUE_FULL, 429)
    assert error.retry_after_s == pytest.approx(2 / 3)
    error = await refusal(queue_room(normal=QueueDepth(6, 2)), admission())
    assert error.retry_after_s == pytest.approx(2.5)
    # Those above go first.
    error = await refusal(queue_room(normal=QueueDepth(6, 2), high=QueueDepth(4, 0)), admission())
    assert error.retry_after_s == pytest.approx(4.5)
    # Free places are for those who wait in the other classes first.
    assert await refusal(queue_room(normal=QueueDepth(2, 0), low=QueueDepth(2, 0)), admission())


async def test_classes_queue_apart_and_each_prompt_counts() -> None:
    await queue_room(low=QueueDepth(9, 2))(admission())
    assert (await refusal(queue_room(), prompts(5))).code is ErrorCode.QUEUE_FULL
    await queue_room()(prompts(4))


async def test_a_model_that_may_not_queue_still_runs_what_can_start() -> None:
    asked = admission()
    asked.card = CARD.model_copy(update={"queue_max": 0})
    await queue_room(normal=QueueDepth(0, 1))(asked)
    assert (await refusal(queue_room(normal=QueueDepth(0, 2)), asked)).code is ErrorCode.QUEUE_FULL


async def test_what_was_let_in_counts_before_any_depth_shows_it() -> None:
    waiting = Waiting("e1")
    room = queue_room(waiting)
    # At once, as a burst comes: none of them has been submitted when the next one asks.
    outcomes = await asyncio.gather(*(room(admission()) for _ in range(9)), return_exceptions=True)
    assert [outcome is None for outcome in outcomes].count(True) == 4
    assert {outcome.code for outcome in outcomes if isinstance(outcome, ServingError)} == {ErrorCode.QUEUE_FULL}


async def test_a_refused_call_leaves_its_room_to_others() -> None:
    waiting = Waiting("e1")
    asked = admission()

    async def refuses(admission: Admission) -> None:
        raise ServingError(ErrorCode.RATE_LIMITED, "no")

    with pytest.raises(ServingError):
        await admit(asked, [queue_room(waiting), refuses])
    assert waiting.tokens(Line("m", PriorityClass.NORMAL)) == 0
    assert waiting.num_unseen(Line("m", PriorityClass.NORMAL), time.monotonic()) == 0


async def test_what_started_while_the_broker_was_asked_is_not_counted_twice() -> None:
    """Acknowledged just before the look, and running in it: it takes a place and does not wait."""
    waiting = Waiting("e1")
    line = Line("m", PriorityClass.NORMAL)
    ticket = waiting.admit(line, [1])

    async def look(model: str, priority: PriorityClass, *, asked_after: float = 0.0) -> Look:
        if asked_after:
            ticket.submitted()
        return Look(time.monotonic(), QueueDepth(2, 1) if priority is line.priority else QueueDepth(0, 0), 0, 0)

    room = QueueRoom(QueueView(look, waiting), waiting, RetryAfter(ServiceRates(lambda model: 2)))
    # Two wait, one of two slots is free: one more may come, and no second one.
    await room(admission())
    assert (await refusal(room, admission())).code is ErrorCode.QUEUE_FULL


def sized(tokens: int, waiting: Waiting, **depths: QueueDepth) -> tuple[QueueRoom, Admission]:
    asked = admission()
    asked.card = CARD.model_copy(update={"queue_max": 100, "queue_max_tokens": 1000})
    asked.prompt_tokens = [tokens]
    return queue_room(waiting, **depths), asked


async def test_the_tokens_that_wait_are_bounded_too() -> None:
    busy = QueueDepth(2, 2)
    waiting = Waiting("e1")
    for tokens in (600, 400):
        room, asked = sized(tokens, waiting, normal=busy)
        await room(asked)
    room, asked = sized(1, waiting, normal=busy)
    error = await refusal(room, asked)
    assert (error.code, error.status) == (ErrorCode.QUEUE_FULL, 429)
    assert "about 1000 prompt tokens, where 1000 may" in error.message
    assert error.retry_after_s and error.retry_after_s > 0
    # Of another class there is room.
    asked.plan = replace(asked.plan, priority=PriorityClass.LOW)
    await room(asked)


async def test_the_tokens_of_other_edges_count() -> None:
    waiting = Waiting("e1")
    waiting.heard("e2", {("m", PriorityClass.NORMAL): 999})
    room, asked = sized(1, waiting, normal=QueueDepth(1, 2))
    await room(asked)
    room, asked = sized(1, waiting, normal=QueueDepth(1, 2))
    assert "1000 prompt tokens" in (await refusal(room, asked)).message


async def test_a_prompt_of_any_size_passes_when_none_waits_or_a_place_is_free() -> None:
    room, asked = sized(5000, Waiting("e1"), normal=QueueDepth(0, 2))
    await room(asked)
    waiting = Waiting("e1")
    for _ in range(2):
        room, asked = sized(5000, waiting)
        await room(asked)
    room, asked = sized(5000, waiting)
    assert await refusal(room, asked)


async def test_what_has_started_waits_no_longer() -> None:
    waiting, busy = Waiting("e1"), QueueDepth(2, 2)
    room, first = sized(1000, waiting, normal=busy)
    await room(first)
    view = HandFedView()
    assert first.ticket is not None
    first.ticket.follow(make_call(view))
    first.ticket.submitted()
    room, asked = sized(1, waiting, normal=busy)
    assert await refusal(room, asked)
    view.start()
    await room(asked)


def test_the_default_model_is_remembered_as_servable() -> None:
    registry = FakeRegistry(serving=())
    models = Models(registry)
    models.note_default()
    assert not models.default_was_servable
    registry.workers = FakeRegistry().workers
    models.note_default()
    registry.workers = FakeRegistry(serving=()).workers
    models.note_default()
    assert models.default_was_servable


def test_a_description_leaves_out_workers_that_drain() -> None:
    described = Models(FakeRegistry()).describe(CARD)
    assert [entry["worker"] for entry in described["backends"]] == ["w1"]
    assert (described["max_model_len"], described["ready"]) == (10, True)
    idle = Models(FakeRegistry(serving=())).describe(CARD)
    assert (idle["max_model_len"], idle["ready"]) == (None, False)


def test_of_tokens_as_many_are_reserved_as_there_are() -> None:
    sizes = PromptSizes()
    sizes.note(CARD.id, Endpoint.COMPLETIONS, 3, 5)
    plan = completion_plan({"prompt": [1] * 10, "max_tokens": 7}, LIMITS)
    assert most_tokens(Admission(IDENTITY, plan, CARD, [], prompt_tokens=[10]), sizes) == 17
    plan = completion_plan({"prompt": "ten tokens", "max_tokens": 7}, LIMITS)
    assert most_tokens(Admission(IDENTITY, plan, CARD, [], prompt_tokens=[10]), sizes) in (23, 24)
