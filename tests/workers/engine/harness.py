"""Driving the engine in tests: step by step without its thread, or with it."""

import time
from dataclasses import dataclass, field
from threading import Condition
from typing import Any

from schemas.errors import ServingError
from schemas.events import FinishReason, Usage
from schemas.requests import ChatMessage, ChatPrompt, PriorityClass, Prompt, SamplingParams, TextPrompt
from workers.engine.config import EngineConfig
from workers.engine.engine import Engine
from workers.engine.messages import (
    Completed,
    Emission,
    EngineRequest,
    Errored,
    PrefillProgress,
    Resume,
    Tokens,
)
from workers.engine.stepper import Stepper
from workers.runners.base import ModelRunner, Opened, RunnerSpec
from workers.runners.echo import EchoRunner


@dataclass
class Answer:
    """What came out for one request."""

    token_ids: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    progress: list[int] = field(default_factory=list)
    reason: FinishReason | None = None
    usage: Usage | None = None
    error: ServingError | None = None

    @property
    def counts(self) -> tuple[int, int]:
        """Prompt and completion tokens, which do not depend on what was computed before."""
        assert self.usage is not None
        return self.usage[:2]

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def is_over(self) -> bool:
        return self.reason is not None or self.error is not None

    def take(self, emission: Emission) -> None:
        assert not self.is_over, "something came after the end"
        match emission:
            case Tokens():
                self.token_ids += emission.token_ids
                self.pieces += emission.pieces
            case PrefillProgress():
                self.progress.append(emission.num_computed)
            case Completed():
                self.token_ids += emission.token_ids
                self.pieces += emission.pieces
                self.reason, self.usage = emission.reason, emission.usage
            case Errored():
                self.error = emission.error


def request(request_id: str, prompt: Prompt | str, *, priority: PriorityClass = PriorityClass.NORMAL, **params: Any):
    """A request with a seed made of its id; `resume` and `tenant` among the keywords go to the request."""
    resume: Resume | None = params.pop("resume", None)
    tenant: str = params.pop("tenant", "")
    params.setdefault("seed", sum(request_id.encode()))
    if isinstance(prompt, str):
        prompt = TextPrompt(prompt)
    return EngineRequest(request_id, prompt, SamplingParams(**params), priority, resume, tenant=tenant)


def chat(*contents: str, continue_last: bool = False) -> ChatPrompt:
    """User and assistant in turns, beginning with the user."""
    roles = ("user", "assistant")
    messages = tuple(ChatMessage(roles[place % 2], content) for place, content in enumerate(contents))
    return ChatPrompt(messages, continue_last)


class Steps:
    """A stepper on the echo runner (or another), driven by hand."""

    def __init__(self, source: str = "echo:random", *, runner: ModelRunner | None = None, **limits: Any) -> None:
        names = ("max_output_tokens", "fairness", "kv")
        config = EngineConfig(**{key: limits.pop(key) for key in names if key in limits})
        clock = limits.pop("clock", time.monotonic)
        self.runner = runner or EchoRunner()
        self.opened: Opened = self.runner.open(RunnerSpec("echo", source, **limits))
        self.stepper = Stepper(self.runner, self.opened, config, clock=clock)
        self.answers: dict[str, Answer] = {}
        self.batches: list[list[tuple[str, int]]] = []

    def add(self, *requests: EngineRequest) -> None:
        for each in requests:
            self.answers[each.request_id] = Answer()
            self.stepper.add(each)
        self._collect()

    def cancel(self, request_id: str) -> None:
        self.stepper.cancel(request_id)
        self.stepper.check_integrity()

    def step(self) -> None:
        plan = self.stepper.schedule()
        if plan.items:
            self.batches.append([(item.sequence.request_id, item.num_tokens) for item in plan.items])
            self.stepper.commit(plan, self.stepper.forward(plan))
        self._collect()
        self.stepper.check_integrity()

    def drain(self, limit: int = 20_000) -> None:
        for _ in range(limit):
            if not self.stepper.has_work:
                return
            self.step()
        raise AssertionError("the work does not end")

    def run(self, *requests: EngineRequest) -> list[Answer]:
        self.add(*requests)
        self.drain()
        return [self.answers[each.request_id] for each in requests]

    @property
    def free_handles(self) -> int:
        """What a new sequence could have: free ones, counted by taking them all, and those of cached KV."""
        taken = []
        while (handle := self.runner.create()) is not None:
            taken.append(handle)
        for handle in taken:
            self.runner.release(handle)
        return len(taken) + self.stepper.scheduler.kv.num_cached_handles

    def _collect(self) -> None:
        for emission in self.stepper.take_emissions():
            self.answers[emission.request_id].take(emission)


class Client:
    """Collects what a real engine emits, and waits for it."""

    def __init__(self, source: str = "echo:random", *, runner: ModelRunner | None = None, **limits: Any) -> None:
        self._changed = Condition()
        self.answers: dict[str, Answer] = {}
        self.unknown: list[Emission] = []
        self.runner = runner or EchoRunner()
        spec = RunnerSpec("echo", source, **limits)
        self.engine = Engine(self.runner, spec, EngineConfig(), self._take)

    def __enter__(self) -> "Client":
        self.engine.start()
        return self

    def __exit__(self, *exc: object) -> None:
        assert self.engine.close(10)

    def submit(self, *requests: EngineRequest) -> None:
        for each in requests:
            with self._changed:
                self.answers[each.request_id] = Answer()
            self.engine.submit(each)

    def wait(self, request_id: str, num_tokens: int | None = None) -> Answer:
        """Until the request is over, or has so many tokens."""

        def is_there() -> bool:
            answer = self.answers[request_id]
            return answer.is_over or (num_tokens is not None and len(answer.token_ids) >= num_tokens)

        with self._changed:
            assert self._changed.wait_for(is_there, 30), f"{request_id} does not end"
            return self.answers[request_id]

    def forget(self, request_id: str) -> None:
        with self._changed:
            del self.answers[request_id]

    def _take(self, emissions: list[Emission]) -> None:
        with self._changed:
            for emission in emissions:
                answer = self.answers.get(emission.request_id)
                if answer is None:
                    self.unknown.append(emission)
                else:
                    answer.take(emission)
            self._changed.notify_all()
