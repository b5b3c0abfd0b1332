"""What a worker has to do, for any wishes and any past."""

from hypothesis import given
from hypothesis import strategies as st

from workers.differences import FIRST_RETRY_S, MAX_RETRY_S, Failure, compare

NAMES = st.sampled_from(["a", "b", "c", "d"])
KEYS = st.sampled_from(["k1", "k2", "k3"])
STAMPS = st.sampled_from([None, 1, 2])
TIMES = st.floats(0, 100)
FAILURES = st.builds(Failure, key=KEYS, reason=st.just("no"), stamp=STAMPS, times=st.just(1), retry_at=TIMES)
BY_KEY = st.dictionaries(NAMES, KEYS)


@given(BY_KEY, BY_KEY, st.dictionaries(NAMES, FAILURES), BY_KEY, st.dictionaries(NAMES, STAMPS), TIMES)
def test_done_once_it_leaves_nothing_to_do(
    wanted: dict[str, str],
    serving: dict[str, str],
    failed: dict[str, Failure],
    skipped: dict[str, str],
    stamps: dict[str, object],
    now: float,
) -> None:
    found = compare(wanted, serving, failed, skipped, stamps, now)
    after = {model: key for model, key in serving.items() if model not in found.close}
    after |= {model: wanted[model] for model in found.load}
    kept = {model: failure for model, failure in failed.items() if model not in (*found.forget, *found.load)}
    left = {model: key for model, key in skipped.items() if model not in (*found.forget, *found.load)}
    assert compare(wanted, after, kept, left, stamps, now) == ((), (), ())
    # Whatever is not served as wanted has failed not long ago, or is another process's.
    missing = {model for model, key in wanted.items() if after.get(model) != key}
    assert missing <= set(kept) | set(left)
    assert set(after) <= set(wanted)


@given(BY_KEY, BY_KEY, st.dictionaries(NAMES, FAILURES), TIMES)
def test_nothing_that_is_wanted_is_closed(
    wanted: dict[str, str], serving: dict[str, str], failed: dict[str, Failure], now: float
) -> None:
    found = compare(wanted, serving, failed, {}, {}, now)
    assert not set(found.close) & set(wanted)
    assert not {model for model in found.load if serving.get(model) == wanted[model]}


@given(FAILURES, KEYS, STAMPS, TIMES)
def test_a_failed_load_is_tried_again_for_a_reason(failure: Failure, key: str, stamp: object, now: float) -> None:
    found = compare({"a": key}, {}, {"a": failure}, {}, {"a": stamp}, now)
    is_another = (failure.key, failure.stamp) != (key, stamp)
    assert bool(found.load) == (is_another or now >= failure.retry_at)


def test_the_pauses_grow_up_to_a_limit() -> None:
    pauses = [Failure.backoff_s(times) for times in range(1, 200)]
    assert (pauses[0], pauses[-1]) == (FIRST_RETRY_S, MAX_RETRY_S)
    assert pauses == sorted(pauses)
