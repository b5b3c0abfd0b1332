"""A resumed request goes on exactly where the first run was, wherever it was cut."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import FinishReason
from schemas.requests import TokenPrompt
from tests.workers.engine.harness import Answer, Steps, chat, request
from workers.engine.messages import Resume


def resumed(source: str, whole: Answer, cut: int, prompt: Any, **params: Any) -> Answer:
    """What a second run adds to the first `cut` tokens of the first."""
    resume = Resume(whole.token_ids[:cut], whole.pieces[:cut])
    [answer] = Steps(source, context=1000).run(request("r", prompt, resume=resume, **params))
    return answer


def check_every_cut(prompt: Any, source: str = "echo:random", **params: Any) -> Answer:
    [whole] = Steps(source, context=1000).run(request("r", prompt, **params))
    for cut in range(len(whole.token_ids) + 1):
        rest = resumed(source, whole, cut, prompt, **params)
        assert rest.token_ids == whole.token_ids[cut:]
        assert rest.pieces == whole.pieces[cut:]
        assert (rest.reason, rest.counts) == (whole.reason, whole.counts)
    return whole


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("seed", [1, 2])
def test_every_split_point_of_a_random_text(temperature: float, seed: int) -> None:
    whole = check_every_cut("a prompt", temperature=temperature, seed=seed, max_tokens=150)
    assert any(not piece for piece in whole.pieces[:-1]), "no character spanned tokens"


def test_every_split_point_with_all_sampling_parameters() -> None:
    check_every_cut(
        chat("hello"),
        temperature=1.2,
        top_k=50,
        top_p=0.95,
        min_p=0.01,
        presence_penalty=0.7,
        frequency_penalty=0.5,
        repetition_penalty=1.2,
        logit_bias=((ord("e"), 2.0), (ord(" "), -1.0)),
        max_tokens=100,
        ignore_eos=True,
    )


def test_every_split_point_inside_a_stop_string() -> None:
    prompt = chat("one two €uro 𝄞 STOPPING three")
    whole = check_every_cut(prompt, "echo", stop=("STOPPED", "STOPPING", "𝄞𝄞"))
    assert (whole.text, whole.reason) == ("one two €uro 𝄞 ", FinishReason.STOP)


def test_every_split_point_when_the_end_cuts_a_character_and_a_possible_stop_string() -> None:
    prompt = TokenPrompt(tuple("ab##€".encode()))
    whole = check_every_cut(prompt, "echo", stop=("##€!",), max_tokens=6)
    assert (whole.text, whole.reason) == ("ab##\ufffd", FinishReason.LENGTH)


def test_a_run_that_had_ended_already_completes_without_a_step() -> None:
    steps = Steps("echo")
    [whole] = steps.run(request("r", "hello"))
    again = Steps("echo")
    again.add(request("r", "hello", resume=Resume(whole.token_ids, whole.pieces)))
    assert not again.stepper.has_work
    answer = again.answers["r"]
    assert (answer.reason, answer.token_ids, answer.usage) == (FinishReason.STOP, [], whole.usage)
    assert not again.batches


def _almost(text: str, at: int, length: int) -> str:
    """A stop string that begins to come at `at` and then does not."""
    return text[at : at + length] + "\x00"


@settings(max_examples=25, deadline=None)
@given(
    prompt=st.text(min_size=1, max_size=20),
    seed=st.integers(0, 2**64),
    temperature=st.sampled_from([0.0, 0.4, 0.9, 1.5]),
    top_k=st.sampled_from([0, 5, 50]),
    top_p=st.sampled_from([0.7, 1.0]),
    presence_penalty=st.sampled_from([0.0, 1.5]),
    frequency_penalty=st.sampled_from([0.0, 0.8]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    stops=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), max_size=4),
    end=st.none() | st.integers(10, 30),
)
def test_every_cut_of_any_request(
    prompt: str, stops: list[tuple[int, int]], end: int | None, **sampling: float | int
) -> None:
    """Stop strings that nearly come, and perhaps one that does, all over a text of characters of one to four tokens."""
    params: dict[str, Any] = {**sampling, "max_tokens": 40, "ignore_eos": True}
    [plain] = Steps(context=1000).run(request("r", prompt, **params))
    texts = [_almost(plain.text, at, length) for at, length in stops]
    if end is not None and plain.text[end:]:
        texts.append(plain.text[end : end + 3])
    params["stop"] = tuple(texts)
    [whole] = Steps(context=1000).run(request("r", prompt, **params))
    engine = Steps(context=1000)
    cuts = range(len(whole.token_ids) + 1)
    resumes = [Resume(whole.token_ids[:cut], whole.pieces[:cut]) for cut in cuts]
    # All at once: what a sequence goes on with must not depend on its neighbours either.
    requests = [request(f"r{cut}", prompt, resume=resume, **params) for cut, resume in zip(cuts, resumes, strict=True)]
    for cut, rest in zip(cuts, engine.run(*requests), strict=True):
        assert whole.token_ids[:cut] + rest.token_ids == whole.token_ids
        assert whole.pieces[:cut] + rest.pieces == whole.pieces
        assert (rest.reason, rest.counts) == (whole.reason, whole.counts)
