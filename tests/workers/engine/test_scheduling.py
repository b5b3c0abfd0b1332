"""Who runs when: batching, chunks, classes, room, and the runner's refusals."""

from typing import Any

import pytest

from schemas.errors import ErrorCode
from schemas.requests import PriorityClass, TokenPrompt
from tests.workers.engine.harness import Answer, Steps, chat, request
from workers.engine.messages import EngineRequest
from workers.runners.base import Batch, ForwardResult, ForwardStatus, Opened, RunnerError, RunnerSpec
from workers.runners.echo import EchoRunner


def alone(source: EngineRequest, echo: str = "echo:random", **limits: int) -> Answer:
    [answer] = Steps(echo, **limits).run(source)
    return answer


def long_prompt(character: str, length: int) -> TokenPrompt:
    return TokenPrompt(tuple(character.encode()) * length)


def test_requests_that_join_and_leave_at_any_step_get_what_they_get_alone() -> None:
    requests = [request(f"r{i}", f"prompt {i} " + "x" * (37 * i), temperature=0.9) for i in range(12)]
    steps = Steps(batch_tokens=64)
    for each in requests:
        steps.add(each)
        for _ in range(7):
            steps.step()
    steps.drain()
    for each in requests:
        got, expected = steps.answers[each.request_id], alone(each)
        assert (got.token_ids, got.pieces, got.counts) == (expected.token_ids, expected.pieces, expected.counts)


def test_32_sequences_at_once_are_never_mixed() -> None:
    secrets = [f"secret-{i:02}-{i * 7919 % 1000:03} çé€𝄞" for i in range(32)]
    steps = Steps("echo", batch_tokens=4096)
    answers = steps.run(*(request(f"r{i}", chat(secret)) for i, secret in enumerate(secrets)))
    assert [answer.text for answer in answers] == secrets
    assert max(len(batch) for batch in steps.batches) == 32


def test_every_kind_of_sampling_in_one_batch_gives_what_it_gives_alone() -> None:
    kinds: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {"temperature": 1.0},
        {"temperature": 0.7, "top_p": 0.9},
        {"temperature": 0.0, "repetition_penalty": 1.3},
        {"temperature": 1.3, "top_k": 20, "min_p": 0.01},
    ]
    requests = [request(f"r{i}", f"prompt {i}", **kinds[i % len(kinds)]) for i in range(15)]
    answers = Steps().run(*requests)
    assert [answer.pieces for answer in answers] == [alone(each).pieces for each in requests]


@pytest.mark.parametrize("batch_tokens", [3, 16, 64, 512])
def test_chunked_prompts_give_what_whole_prompts_give(batch_tokens: int) -> None:
    source = request("a", "x" * 200)
    assert alone(source, batch_tokens=batch_tokens).text == alone(source, batch_tokens=512).text


def test_chunked_prompts_never_keep_decodes_waiting() -> None:
    steps = Steps(batch_tokens=40)
    steps.add(request("decode", "x", ignore_eos=True, max_tokens=200))
    steps.step()
    steps.add(request("long", long_prompt("y", 2000)), request("longer", long_prompt("z", 3000)))
    for _ in range(50):
        before = len(steps.answers["decode"].token_ids)
        steps.step()
        assert len(steps.answers["decode"].token_ids) == before + 1
    assert steps.answers["long"].progress
    assert all(sum(count for _, count in batch) <= 40 for batch in steps.batches)


def test_progress_of_a_long_prompt_is_told_until_its_first_token() -> None:
    steps = Steps(batch_tokens=100)
    steps.add(request("a", long_prompt("x", 350)))
    steps.drain()
    assert steps.answers["a"].progress == [100, 200, 300]


def test_classes_are_strict_and_arrival_decides_inside() -> None:
    steps = Steps("echo", sequences=1)
    order = []
    kinds = [PriorityClass.BATCH, PriorityClass.LOW, PriorityClass.NORMAL, PriorityClass.NORMAL, PriorityClass.HIGH]
    steps.add(*(request(f"{kind}-{i}", "hi", priority=kind) for i, kind in enumerate(kinds)))
    while steps.stepper.has_work:
        steps.step()
        order += [name for name, answer in steps.answers.items() if answer.is_over and name not in order]
    assert order == ["high-4", "normal-2", "normal-3", "low-1", "batch-0"]


def test_a_higher_class_is_prefilled_first() -> None:
    steps = Steps(batch_tokens=50)
    steps.add(request("low", long_prompt("x", 200), priority=PriorityClass.LOW))
    steps.add(request("high", long_prompt("y", 200), priority=PriorityClass.HIGH))
    steps.step()
    assert steps.batches[0] == [("high", 50)]


def test_a_request_waits_until_all_its_kv_can_be_reserved() -> None:
    steps = Steps("echo:random?kv_tokens=100", context=90)
    steps.add(request("a", long_prompt("x", 50), max_tokens=20))
    steps.add(request("b", long_prompt("y", 20), max_tokens=20))
    steps.step()
    scheduler = steps.stepper.scheduler
    assert ([s.request_id for s in scheduler.running], scheduler.num_reserved) == (["a"], 70)
    assert scheduler.is_blocked
    steps.drain()
    assert scheduler.num_reserved == 0
    assert all(answer.reason for answer in steps.answers.values())


@pytest.mark.parametrize("when", ["waiting", "prefill", "decode"])
def test_a_cancelled_sequence_frees_its_handle_before_the_next_step(when: str) -> None:
    steps = Steps(sequences=2, batch_tokens=64)
    if when == "waiting":
        steps.add(*(request(f"other{i}", "x", ignore_eos=True, max_tokens=50) for i in range(2)))
    steps.add(request("a", long_prompt("x", 300 if when == "prefill" else 10), ignore_eos=True))
    for _ in range(3):
        steps.step()
    answer = steps.answers["a"]
    assert (bool(answer.token_ids), bool(answer.progress)) == (when == "decode", when == "prefill")
    known = len(answer.token_ids)
    running = len(steps.stepper.scheduler.running)
    steps.cancel("a")
    assert len(steps.stepper.scheduler.running) == running - (when != "waiting")
    assert steps.free_handles == 2 - len(steps.stepper.scheduler.running)
    steps.drain()
    assert len(answer.token_ids) == known
    assert not answer.is_over


class Cramped(EchoRunner):
    """Promises more KV than it has."""

    def __init__(self, real: int) -> None:
        super().__init__()
        self.real = real
        self.refusals = 0

    def can_fit(self, batch: Batch) -> bool:
        fits = self._num_used + len(batch.tokens) <= self.real
        self.refusals += not fits
        return fits


def test_without_space_the_newest_prompt_gives_way_and_all_answers_are_right() -> None:
    requests = [request(f"r{i}", long_prompt(chr(97 + i), 60), ignore_eos=True, max_tokens=40) for i in range(6)]
    runner = Cramped(250)
    steps = Steps(runner=runner, batch_tokens=64)
    answers = steps.run(*requests)
    assert runner.refusals > 0
    assert [answer.text for answer in answers] == [alone(each).text for each in requests]
    assert steps.free_handles == 32
    assert steps.stepper.scheduler.num_reserved == 0
    assert steps.stepper.stats().preemptions_total > 0


def test_without_space_for_one_alone_it_fails_and_the_next_runs() -> None:
    steps = Steps("echo", runner=Cramped(50))
    steps.add(request("a", long_prompt("x", 60)))
    steps.add(request("b", "fits"))
    steps.drain()
    error = steps.answers["a"].error
    assert error is not None
    assert (error.code, error.retryable) == (ErrorCode.INTERNAL, True)
    assert steps.answers["b"].text == "fits"
    assert steps.free_handles == 32


class Interrupted(EchoRunner):
    """Every third forward pass is aborted half way."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, batch: Batch) -> ForwardResult:
        self.count += 1
        if self.count % 3 == 1 and self.count > 1:
            self._grow(self._runs(batch), batch.tokens.tolist(), len(batch.tokens) // 2)
            return ForwardResult(ForwardStatus.ABORTED)
        return super().forward(batch)


class CannotTruncate(Interrupted):
    def open(self, spec: RunnerSpec) -> Opened:
        facts, capabilities = super().open(spec)
        values = {name: getattr(capabilities, name) for name in capabilities.__slots__} | {"can_truncate": False}
        return Opened(facts, type(capabilities)(**values))

    def truncate(self, handle: object, num_tokens: int) -> None:
        raise AssertionError("it said it cannot")


def test_aborted_passes_leave_no_trace_in_the_answers() -> None:
    requests = [request(f"r{i}", f"hello {i}" * 20, temperature=0.9) for i in range(5)]
    steps = Steps(runner=Interrupted(), batch_tokens=50)
    answers = steps.run(*requests)
    assert [answer.pieces for answer in answers] == [alone(each).pieces for each in requests]


def test_after_an_abort_a_runner_that_cannot_truncate_starts_its_sequences_anew() -> None:
    runner = CannotTruncate()
    source = request("a", "hello", ignore_eos=True, max_tokens=1)
    assert Steps(runner=runner).run(source)[0].text == alone(source).text
    assert runner.count >= 2


class Poisoned(EchoRunner):
    """Computes nonsense for sequences whose logits row would be the second."""

    def forward(self, batch: Batch) -> ForwardResult:
        result = super().forward(batch)
        if result.logits is not None and len(result.logits) > 1:
            result.logits[1, :] = float("nan")
        return result


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nonsense_in_one_row_fails_that_sequence_alone(temperature: float) -> None:
    requests = [request(f"r{i}", f"p{i}", temperature=temperature) for i in range(2)]
    first, second = Steps(runner=Poisoned()).run(*requests)
    assert second.error is not None
    assert first.pieces == alone(requests[0]).pieces


class Leaky(EchoRunner):
    def create(self):  # type: ignore[no-untyped-def]
        return None if self._is_open else super().create()

    _is_open = False

    def open(self, spec: RunnerSpec) -> Opened:
        opened = super().open(spec)
        self._is_open = True
        return opened


def test_a_runner_without_handles_is_an_error_not_an_endless_loop() -> None:
    steps = Steps(runner=Leaky())
    with pytest.raises(RunnerError):
        steps.run(request("a", "x"))
