"""Drawing tokens: against plain references, over distributions small enough to enumerate."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ServingError
from schemas.requests import SamplingParams
from workers.engine.block_draws import BlockDraws
from workers.engine.draws import CounterDraws
from workers.engine.sampler import Sampler, SamplerKind, SamplerScratch

VOCAB = 600  # more than two blocks, not a multiple
Row = npt.NDArray[np.float32]


def sampler(prompt: list[int] | None = None, **params: Any) -> Sampler:
    params.setdefault("seed", 7)
    return Sampler(SamplingParams(**params), prompt or [], SamplerScratch(VOCAB))


def random_row(seed: int, spread: float = 3.0) -> Row:
    return (np.random.default_rng(seed).normal(size=VOCAB) * spread).astype(np.float32)


def allowed(
    row: Row, *, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> dict[int, float]:
    """Probabilities by definition: a full sort, filters one after the other."""
    logits = row.astype(np.float64) / temperature
    ids = [int(i) for i in np.argsort(-row, kind="stable")]
    ids = [i for i in ids if logits[i] - logits[ids[0]] >= (math.log(min_p) if min_p else -math.inf)]
    ids = ids[: top_k or None]
    weights = np.exp(logits[ids] - logits[ids[0]])
    weights /= weights.sum()
    kept = int(np.searchsorted(np.cumsum(weights), top_p)) + 1 if top_p < 1 else len(ids)
    return dict(zip(ids[:kept], weights[:kept] / weights[:kept].sum(), strict=True))


filters = [
    {},
    {"top_k": 5},
    {"top_p": 0.8},
    {"min_p": 0.1},
    {"top_k": 40, "top_p": 0.9, "min_p": 0.02},
    {"top_p": 0.999},
    {"top_k": 599, "top_p": 0.5},
    {"min_p": 0.05, "top_p": 0.7},
]


@pytest.mark.parametrize("params", filters)
@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.8])
def test_draws_follow_the_filtered_distribution(params: dict[str, Any], temperature: float) -> None:
    row = random_row(3)
    expected = allowed(row, temperature=temperature, **params)
    drawing = sampler(temperature=temperature, **params)
    count = 3000
    drawn = np.bincount([drawing.sample(row, index) for index in range(count)], minlength=VOCAB)
    assert set(np.flatnonzero(drawn)) <= set(expected)
    for token_id, probability in expected.items():
        assert abs(drawn[token_id] - count * probability) < 6 * math.sqrt(count * probability) + 6


@given(st.integers(0, 2**32), st.sampled_from(filters), st.floats(0.2, 2), st.floats(0.1, 8), st.integers(0, 10**6))
def test_nothing_outside_the_filters_is_ever_drawn(seed, params, temperature, spread, index) -> None:
    row = random_row(seed, spread)
    assert sampler(seed=seed, temperature=temperature, **params).sample(row, index) in allowed(
        row, temperature=temperature, **params
    )


def test_draws_depend_on_seed_and_index_alone() -> None:
    row = random_row(1)
    one, other = sampler(seed=5), sampler(seed=5)
    forward = [one.sample(row, index) for index in range(50)]
    backward = [other.sample(row, index) for index in reversed(range(50))]
    assert forward == backward[::-1]
    assert forward != [sampler(seed=6).sample(row, index) for index in range(50)]


def test_uniform_draws_are_those_of_numpys_philox() -> None:
    draws = CounterDraws()
    for seed, index in [(0, 0), (1, 7), (2**64 + 3, 2**40), (-1, 5)]:
        bits = np.random.Philox(key=seed % 2**128, counter=index)
        assert draws.uniform(seed, index) == np.random.Generator(bits).random()


def test_zero_temperature_and_top_k_of_one_take_the_largest() -> None:
    row = random_row(2)
    for params in ({"temperature": 0.0}, {"top_k": 1}, {"temperature": 1e-9}):
        drawing = sampler(**params)
        assert drawing.kind is SamplerKind.GREEDY
        assert drawing.sample(row, 0) == row.argmax()
    assert sampler(top_p=0.0).sample(row, 0) == row.argmax()


def test_what_is_drawn_for_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    rows = np.stack([random_row(seed) for seed in range(300)])
    draws = BlockDraws(VOCAB)
    tops, temperatures = rows.max(axis=1), np.linspace(0.2, 2, len(rows), dtype=np.float32)
    uniforms = np.random.default_rng(1).random(len(rows))
    uniforms[:2] = 0.0, 1 - 2**-53
    together = draws.draw(rows, tops, temperatures, uniforms)
    alone = [
        draws.draw(rows[i : i + 1], tops[i : i + 1], temperatures[i : i + 1], uniforms[i : i + 1]) for i in range(300)
    ]
    assert [[token_id] for token_id in together] == alone


def test_ties_go_to_the_lower_id() -> None:
    row = np.zeros(VOCAB, np.float32)
    assert sampler(temperature=0.0).sample(row, 0) == 0
    assert {sampler(top_k=3).sample(row, index) for index in range(100)} == {0, 1, 2}


def test_the_row_is_left_as_it_is() -> None:
    row = random_row(4)
    before = row.copy()
    sampler(logit_bias=((3, 50.0),), repetition_penalty=1.5, prompt=[3]).sample(row, 0)
    assert (row == before).all()


def test_tokens_with_no_probability_are_never_drawn() -> None:
    row = np.full(VOCAB, -np.inf, np.float32)
    row[[255, 256, 599]] = 0.0
    assert {sampler().sample(row, index) for index in range(200)} == {255, 256, 599}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_an_error_of_the_sequence(bad: float, temperature: float) -> None:
    row = random_row(5)
    row[17] = bad
    with pytest.raises(ServingError):
        sampler(temperature=temperature).sample(row, 0)
    with pytest.raises(ServingError):
        sampler(temperature=temperature).sample(np.full(VOCAB, -np.inf, np.float32), 0)


def test_logit_bias_moves_the_choice() -> None:
    row = random_row(6)
    assert sampler(temperature=0.0, logit_bias=((9, 100.0),)).sample(row, 0) == 9
    best = int(row.argmax())
    assert sampler(temperature=0.0, logit_bias=((best, -100.0),)).sample(row, 0) == np.argsort(row)[-2]


def penalised(row: Row, prompt: list[int], output: list[int], params: SamplingParams) -> Row:
    """vLLM's definition, token by token."""
    result = row.copy()
    for token_id, bias in params.logit_bias:
        result[token_id] += np.float32(bias)
    for token_id in set(prompt) | set(output):
        factor = np.float32(params.repetition_penalty)
        result[token_id] = result[token_id] / factor if result[token_id] > 0 else result[token_id] * factor
    for token_id in set(output):
        count = output.count(token_id)
        result[token_id] -= np.float32(params.frequency_penalty) * count + np.float32(params.presence_penalty)
    return result


token_lists = st.lists(st.integers(0, VOCAB - 1), max_size=80)


@given(token_lists, token_lists, st.floats(0.5, 2), st.floats(-2, 2), st.floats(-2, 2), st.integers(0, 1000))
def test_penalties_are_those_of_the_definition(prompt, output, repetition, frequency, presence, seed) -> None:
    params = SamplingParams(
        seed=0,
        temperature=0.0,
        repetition_penalty=repetition,
        frequency_penalty=frequency,
        presence_penalty=presence,
        logit_bias=((5, 1.5), (7, -2.0)),
    )
    drawing = Sampler(params, prompt, SamplerScratch(VOCAB))
    for token_id in output:
        drawing.observe(token_id)
    row = random_row(seed)
    assert drawing.sample(row, len(output)) == penalised(row, prompt, output, params).argmax()
