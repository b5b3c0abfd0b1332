"""What the engine takes for granted of every runner."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from tests.conformance.cases import CRAMPED_CASES, RunnerCase
from tests.conformance.driver import Driver, Run
from workers.runners.base import ForkKind, ForwardStatus, Handle

# Each has more than 60 tokens in any vocabulary.
TEXTS = [
    "The capital of France is Paris, and that of Italy is Rome; çé€𝄞. Other capitals, from 1 to 7: Berlin, Madrid,"
    " Lisbon, Vienna, Warsaw, Prague and Athens. Some of these cities lost that rank for 10, 50 or 100 years before"
    " they became it again; so the answer depends on when you ask.",
    "Once upon a time there was a small engine that served many. It took a word from each of them, and gave each"
    " a word in return, and none of them ever heard what the others had said. When one left, the others closed ranks;"
    " when one came, they made room. Nobody knew how long it had run like this.",
    "Zählen: eins, zwei, drei, vier, fünf, sechs, sieben, acht. Dann weiter: neun, zehn, elf, zwölf, dreizehn,"
    " vierzehn, fünfzehn, sechzehn.",
]


Part = Callable[[int], int]


@pytest.fixture
def prompts(driver: Driver, case: RunnerCase) -> list[list[int]]:
    tokenizer = driver.facts.tokenizer
    encoded = [tokenizer.encode(text, add_bos=tokenizer.bos_id is not None, parse_special=False) for text in TEXTS]
    return [tokens[: case.prompt_tokens] for tokens in encoded]


@pytest.fixture
def part(case: RunnerCase) -> Part:
    """So many tokens of a prompt of 60, or as large a part of a shorter one."""
    return lambda num_tokens: num_tokens * case.prompt_tokens // 60


def fresh(driver: Driver, tokens: list[int]) -> np.ndarray:
    """Logits after every token, in a handle of their own that is gone afterwards."""
    handle = driver.create()
    rows = driver.feed(handle, tokens)
    driver.runner.release(handle)
    return rows


def test_batched_equals_single(driver: Driver, prompts: list[list[int]], part: Part) -> None:
    prompts = [tokens[: part(40)] for tokens in prompts]
    singles = [fresh(driver, tokens) for tokens in prompts]
    handles = [driver.create() for _ in prompts]
    together = [driver.forward(*(Run(h, tokens[: -part(10)]) for h, tokens in zip(handles, prompts, strict=True)))]
    for step in range(-part(10), 0):
        together.append(driver.forward(*(Run(h, [tokens[step]]) for h, tokens in zip(handles, prompts, strict=True))))
    alone = [np.stack([rows[-1 - step] for rows in singles]) for step in range(part(10), -1, -1)]
    driver.compare(np.concatenate(alone), np.concatenate(together))


def test_decodes_beside_a_prompt_equal_single(driver: Driver, prompts: list[list[int]]) -> None:
    first, second = prompts[:2]
    expected = fresh(driver, first)[-1], fresh(driver, second)[-1]
    one, other = driver.create(), driver.create()
    driver.forward(Run(one, first[:-1]))
    rows = driver.forward(Run(one, first[-1:]), Run(other, second))
    driver.compare(np.stack(expected), rows)


@pytest.mark.parametrize("chunk", [1, 7, 32])
def test_chunked_equals_whole(driver: Driver, prompts: list[list[int]], part: Part, chunk: int) -> None:
    whole = fresh(driver, prompts[0])
    driver.compare(whole, driver.feed(driver.create(), prompts[0], chunk=min(chunk, part(50))))


def test_forked_equals_fresh_and_leaves_the_origin_alone(driver: Driver, prompts: list[list[int]], part: Part) -> None:
    if driver.capabilities.fork is ForkKind.NONE:
        pytest.skip("the runner cannot fork")
    first, second = prompts[:2]
    branch = first[: part(20)] + second[: part(20)]
    expected_branch, expected_origin = fresh(driver, branch), fresh(driver, first)
    origin = driver.create()
    driver.feed(origin, first[: part(30)])
    fork = driver.fork(origin, part(20))
    assert fork is not None
    assert driver.runner.length(fork) == part(20)
    driver.compare(expected_branch[part(20) :], driver.feed(fork, second[: part(20)]))
    driver.compare(expected_origin[part(30) :], driver.feed(origin, first[part(30) :]))
    driver.runner.release(origin)
    assert driver.runner.length(fork) == 2 * part(20)


def test_truncated_and_regrown_equals_fresh(driver: Driver, prompts: list[list[int]], part: Part) -> None:
    if not driver.capabilities.can_truncate:
        pytest.skip("the runner cannot truncate")
    first, second = prompts[:2]
    handle = driver.create()
    driver.feed(handle, first)
    driver.runner.truncate(handle, part(25))
    assert driver.runner.length(handle) == part(25)
    expected = fresh(driver, first[: part(25)] + second[: part(20)])[part(25) :]
    driver.compare(expected, driver.feed(handle, second[: part(20)]))
    driver.runner.truncate(handle, 0)
    driver.compare(fresh(driver, second), driver.feed(handle, second), same_path=True)


def test_imported_equals_the_original(driver: Driver, prompts: list[list[int]], part: Part) -> None:
    if not driver.capabilities.can_export:
        pytest.skip("the runner cannot export")
    tokens = prompts[0]
    handle = driver.create()
    driver.feed(handle, tokens[: part(40)])
    data = driver.runner.export(handle)
    expected = driver.feed(handle, tokens[part(40) :])
    driver.runner.release(handle)
    copy = driver.import_(data, part(40))
    assert copy is not None
    assert driver.runner.length(copy) == part(40)
    driver.compare(expected, driver.feed(copy, tokens[part(40) :]), same_path=True)


def test_an_aborted_pass_can_be_truncated_and_done_again(case: RunnerCase) -> None:
    runner = case.create()
    driver = Driver(runner, runner.open(case.slow_spec))
    tokenizer = driver.facts.tokenizer
    tokens = (tokenizer.encode(TEXTS[0], add_bos=False, parse_special=False) * 4)[:128]
    handle = driver.create()
    driver.forward(Run(handle, tokens[:1]))
    done = threading.Event()

    def interrupt() -> None:
        while not done.wait(0.005):
            runner.abort()

    thread = threading.Thread(target=interrupt)
    thread.start()
    result = runner.forward(driver.batch(Run(handle, tokens[1:128])))
    done.set()
    thread.join()
    assert result.status is ForwardStatus.ABORTED
    assert result.logits is None
    runner.truncate(handle, 1)
    again = driver.feed(handle, tokens[1:4], chunk=1)
    runner.close()
    undisturbed = case.create()
    reference = Driver(undisturbed, undisturbed.open(case.spec))
    driver.compare(reference.feed(reference.create(), tokens[:4], chunk=1)[1:], again, same_path=True)
    undisturbed.close()


def test_an_abort_between_passes_is_forgotten(driver: Driver, prompts: list[list[int]]) -> None:
    driver.runner.abort()
    driver.compare(fresh(driver, prompts[0]), fresh(driver, prompts[0]), same_path=True)


@pytest.mark.parametrize("case", CRAMPED_CASES, ids=lambda case: case.name)
def test_no_space_changes_nothing(case: RunnerCase) -> None:
    assert case.cramped_spec is not None
    runner = case.create()
    driver = Driver(runner, runner.open(case.cramped_spec))
    tokens = (driver.facts.tokenizer.encode(TEXTS[0], add_bos=False, parse_special=False) * 3)[:100]
    handle, other = driver.create(), driver.create()
    driver.feed(handle, tokens[:100])
    batch = driver.batch(Run(handle, tokens[:2]), Run(other, tokens[:90]))
    assert not runner.can_fit(batch)
    assert runner.forward(batch).status is ForwardStatus.NO_SPACE
    assert (runner.length(handle), runner.length(other)) == (100, 0)
    rows = driver.feed(handle, tokens[:2])
    runner.release(handle)
    runner.release(other)
    assert runner.can_fit(driver.batch(Run(driver.create(), tokens[:90])))
    driver.compare(fresh(driver, tokens + tokens[:2])[100:], rows)
    runner.close()


def test_handles_run_out_and_come_back(driver: Driver) -> None:
    handles = [driver.create() for _ in range(driver.capabilities.max_handles)]
    assert len({handle.id for handle in handles}) == len(handles)
    assert driver.try_create() is None
    driver.runner.release(handles[1])
    assert driver.try_create() is not None


def test_a_stale_handle_is_released_without_harm(driver: Driver, prompts: list[list[int]], part: Part) -> None:
    stale = driver.create()
    driver.feed(stale, prompts[0][: part(10)])
    driver.runner.release(stale)
    successors = [driver.create() for _ in range(driver.capabilities.max_handles)]
    heir = next(handle for handle in successors if handle.id == stale.id)
    assert heir.generation != stale.generation
    assert driver.runner.length(heir) == 0
    driver.feed(heir, prompts[1][: part(20)])
    driver.runner.release(stale)
    driver.runner.release(Handle(stale.id, stale.generation))
    assert driver.runner.length(heir) == part(20)
    for handle in successors:
        if handle is not heir:
            driver.runner.release(handle)
    driver.compare(fresh(driver, prompts[1])[part(20) :], driver.feed(heir, prompts[1][part(20) :]))


def test_logits_come_for_the_rows_asked_for(driver: Driver, prompts: list[list[int]]) -> None:
    every = fresh(driver, prompts[0])
    handle = driver.create()
    rows = driver.forward(Run(handle, prompts[0]))
    assert len(rows) == 1
    driver.compare(every[-1:], rows)


def test_a_pass_without_logits_is_allowed(driver: Driver, prompts: list[list[int]], part: Part) -> None:
    handle = driver.create()
    batch = driver.batch(Run(handle, prompts[0][: part(30)]))
    silent = type(batch)(batch.tokens, batch.handle_ids, batch.positions, batch.logit_rows[:0])
    assert driver.runner.forward(silent).status is ForwardStatus.OK
    assert driver.runner.length(handle) == part(30)
    driver.compare(fresh(driver, prompts[0])[part(30) :], driver.feed(handle, prompts[0][part(30) :]))


def test_facts_describe_the_tokenizer(driver: Driver) -> None:
    tokenizer = driver.facts.tokenizer
    for text in TEXTS:
        token_ids = tokenizer.encode(text, add_bos=False, parse_special=False)
        assert b"".join(map(tokenizer.token_bytes, token_ids)).decode().strip() == text
        assert all(len(tokenizer.token_bytes(token_id)) <= driver.facts.max_token_bytes for token_id in token_ids)
    assert tokenizer.end_ids
    assert all(tokenizer.token_bytes(token_id) == b"" for token_id in tokenizer.end_ids)
    if tokenizer.bos_id is not None:
        assert tokenizer.encode("x", add_bos=True, parse_special=False)[0] == tokenizer.bos_id
        assert tokenizer.encode(driver.facts.bos_token, add_bos=False, parse_special=True) == [tokenizer.bos_id]
