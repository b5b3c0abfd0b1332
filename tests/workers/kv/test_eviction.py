"""Which entry goes first."""

import pytest

from workers.kv.entry import Entry
from workers.kv.eviction import Clock, EvictionPolicy, Lru
from workers.kv.spans import SpanLedger


def entries(policy: EvictionPolicy, count: int) -> list[Entry]:
    ledger = SpanLedger(is_sharing=False)
    made = [Entry("", [number], ledger.reserve(1)) for number in range(count)]
    for entry in made:
        policy.add(entry)
    return made


def take(policy: EvictionPolicy, *locked: Entry) -> int:
    entry = policy.choose(lambda entry: entry not in locked)
    assert entry is not None
    policy.remove(entry)
    return entry.tokens[0]


def test_lru_takes_what_was_unused_for_longest() -> None:
    policy = Lru()
    made = entries(policy, 4)
    policy.touch(made[0])
    policy.touch(made[1])
    assert [take(policy), take(policy), take(policy), take(policy)] == [2, 3, 0, 1]


def test_clock_passes_once_over_what_was_used() -> None:
    policy = Clock()
    made = entries(policy, 4)
    policy.touch(made[0])
    policy.touch(made[2])
    assert [take(policy), take(policy)] == [1, 3]
    # The hand took the marks with it.
    assert [take(policy), take(policy)] == [0, 2]


@pytest.mark.parametrize("policy", [Lru(), Clock()])
def test_what_cannot_go_stays_and_keeps_its_place(policy: EvictionPolicy) -> None:
    made = entries(policy, 3)
    policy.touch(made[1])
    assert take(policy, made[0], made[1]) == 2
    assert policy.choose(lambda entry: False) is None
    assert (made[0] in policy, made[2] in policy, len(policy)) == (True, False, 2)
    assert take(policy) == 0
