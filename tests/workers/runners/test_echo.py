"""The echo runner's own promises; those of every runner are in tests/conformance."""

import os
import signal
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.engine.harness import Steps, request
from workers.runners.base import Batch, Handle, RunnerError, RunnerSpec
from workers.runners.echo import EchoRunner
from workers.runners.echo.options import EchoMode, EchoOptions, parse_source
from workers.runners.echo.tokenizer import BOS, EOS, IM_END, IM_START, PROMPT_END, ByteTokenizer


def opened(source: str = "echo:random", **limits: int) -> EchoRunner:
    runner = EchoRunner()
    runner.open(RunnerSpec("echo", source, **limits))
    return runner


def batch(*runs: tuple[Handle, int, list[int]], logit_rows: list[int] | None = None) -> Batch:
    tokens = [token for _, _, run in runs for token in run]
    return Batch(
        np.array(tokens, np.int32),
        np.array([handle.id for handle, _, run in runs for _ in run], np.int32),
        np.array([start + i for _, start, run in runs for i in range(len(run))], np.int32),
        np.array([len(tokens) - 1] if logit_rows is None else logit_rows, np.int32),
    )


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("echo", EchoOptions()),
        ("echo:repeat", EchoOptions()),
        ("echo:repeat?rate=50", EchoOptions(rate=50)),
        ("echo?prefill_rate=1000.5", EchoOptions(prefill_rate=1000.5)),
        ("echo:random?rate=5&seed=3&kv_tokens=100", EchoOptions(EchoMode.RANDOM, 5, None, 3, 100)),
        ("echo:repeat?die_on=bad%20prompt", EchoOptions(die_on="bad prompt")),
        ("echo:repeat?hang_on=stop", EchoOptions(hang_on="stop")),
    ],
)
def test_sources_are_understood(source: str, options: EchoOptions) -> None:
    assert parse_source(source) == options


@pytest.mark.parametrize(
    "source",
    [
        *("", "model.gguf", "echo:loud", "echo?speed=1", "echo?rate=fast", "echo?rate=0", "echo?rate=inf"),
        *("echo?rate", "echo?die_on=", "echo?hang_on="),
    ],
)
def test_other_sources_are_refused(source: str) -> None:
    with pytest.raises(RunnerError):
        EchoRunner().open(RunnerSpec("echo", source))


@given(st.text())
def test_text_survives_the_tokenizer(text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    tokenizer = ByteTokenizer()
    token_ids = tokenizer.encode(text, add_bos=False, parse_special=False)
    assert b"".join(map(tokenizer.token_bytes, token_ids)).decode() == text


def test_markers_are_control_tokens_only_when_asked() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.encode("<|im_start|>a<|im_end|>", add_bos=False, parse_special=True) == [IM_START, 97, IM_END]
    assert len(tokenizer.encode("<|eos|>", add_bos=False, parse_special=False)) == 7
    assert tokenizer.encode("a", add_bos=True, parse_special=True) == [BOS, 97, PROMPT_END]
    assert all(tokenizer.token_bytes(token_id) == b"" for token_id in (BOS, EOS, IM_START, IM_END, PROMPT_END))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_random_texts_vary_in_length_and_hold_characters_of_every_width(temperature: float) -> None:
    answers = Steps(batch_tokens=2048).run(
        *(request(f"r{i}", f"p{i}", temperature=temperature, seed=i, max_tokens=2000) for i in range(60))
    )
    lengths = [len(answer.token_ids) for answer in answers]
    assert 60 <= sum(lengths) / len(lengths) <= 200
    assert len(set(lengths)) > 30
    text = "".join(answer.text for answer in answers)
    assert {len(character.encode()) for character in text} == {1, 2, 3, 4}
    assert sum(character.isprintable() for character in text) / len(text) > 0.9


def test_another_seed_is_another_model() -> None:
    runners = [opened(f"echo:random?seed={seed}") for seed in (0, 1)]
    rows = [runner.forward(batch((runner.create(), 0, [5, 6]))).logits for runner in runners]  # type: ignore[arg-type]
    assert not np.array_equal(*rows)  # type: ignore[arg-type]
    prints = {EchoRunner().open(RunnerSpec("e", source)).facts.fingerprint for source in ("echo", "echo:random")}
    assert len(prints) == 2


@pytest.mark.parametrize("change", ["token", "place"])
def test_logits_depend_on_every_token_and_its_place(change: str) -> None:
    runner = opened()
    first, second = runner.create(), runner.create()
    assert first is not None and second is not None
    tokens = list(range(40))
    other = [99, *tokens[1:]] if change == "token" else [7, *tokens]
    one = runner.forward(batch((first, 0, tokens))).logits
    two = runner.forward(batch((second, 0, other))).logits
    assert one is not None and two is not None
    assert not np.array_equal(one, two)


def test_broken_promises_are_noticed() -> None:
    runner = opened(context=10, batch_tokens=8)
    handle, other = runner.create(), runner.create()
    assert handle is not None and other is not None
    runner.forward(batch((handle, 0, [1, 2])))
    broken = [
        batch((handle, 0, [3])),
        batch((handle, 3, [3])),
        batch((handle, 2, [3]), (other, 0, [1]), (handle, 3, [4])),
        batch((handle, 2, [1] * 9)),
        batch((other, 0, [1000])),
        batch((other, 0, [1, 2]), logit_rows=[1, 0]),
        batch((other, 0, [1, 2]), logit_rows=[2]),
        batch((Handle(5, 0), 0, [1])),
    ]
    for each in broken:
        with pytest.raises(AssertionError):
            runner.forward(each)
    runner.forward(batch((handle, 2, [1] * 8)))
    with pytest.raises(AssertionError):
        runner.forward(batch((handle, 10, [1])))
    with pytest.raises(AssertionError):
        runner.truncate(handle, 11)
    runner.release(handle)
    with pytest.raises(AssertionError):
        runner.length(handle)


def test_the_pace_is_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of the test's own: nothing sleeps."""
    runner = opened("echo:random?rate=50&prefill_rate=100")
    now = [time.monotonic() + 100]
    waits = []

    def wait(timeout: float) -> bool:
        waits.append(round(timeout, 6))
        now[0] += timeout
        return False

    monkeypatch.setattr("workers.runners.echo.runner.time.monotonic", lambda: now[0])
    monkeypatch.setattr(runner._aborted, "wait", wait)
    handle, other = runner.create(), runner.create()
    assert handle is not None and other is not None
    runner.forward(batch((handle, 0, [1] * 30)))
    runner.forward(batch((handle, 30, [1])))
    now[0] += 0.005
    runner.forward(batch((handle, 31, [1])))
    runner.forward(batch((handle, 32, [1]), (other, 0, [1] * 10)))
    assert waits == [0.3, 0.02, 0.015, 0.12]


def test_a_deadly_prompt_kills_the_process_once_it_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *arguments: signals.append(arguments))
    runner = opened("echo:repeat?die_on=é")
    deadly, harmless = runner.create(), runner.create()
    assert deadly is not None and harmless is not None
    prompt = list("caffé".encode())
    runner.forward(batch((deadly, 0, prompt[:5]), logit_rows=[]))
    runner.forward(batch((harmless, 0, list(b"cafe"))))
    runner.forward(batch((deadly, 5, prompt[5:]), logit_rows=[]))
    assert signals == []
    runner.forward(batch((deadly, len(prompt), [PROMPT_END]), (harmless, 4, [PROMPT_END]), logit_rows=[0, 1]))
    assert signals == [(os.getpid(), signal.SIGKILL)]
