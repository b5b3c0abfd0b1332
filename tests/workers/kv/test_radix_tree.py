"""Beginnings in common, against a list of sequences."""

from hypothesis import given
from hypothesis import strategies as st

from workers.kv.radix_tree import RadixTree


def found(tree: RadixTree[str], tokens: list[int]) -> dict[str, int]:
    return {item: shared for item, shared in tree.find(tokens)}


def num_common(one: list[int], other: list[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def test_two_that_share_only_their_beginning_find_each_other() -> None:
    tree: RadixTree[str] = RadixTree()
    tree.insert([5, 1, 7, 9, 9, 4], "a")
    assert found(tree, [5, 1, 7, 2]) == {"a": 3}
    tree.insert([5, 1, 7, 2, 8], "b")
    assert found(tree, [5, 1, 7, 2, 3]) == {"b": 4, "a": 3}
    assert list(tree.find([5, 1, 7, 2, 3])) == [("b", 4), ("a", 3)]
    assert found(tree, [6, 5, 1]) == {}


def test_what_is_removed_is_not_found_and_its_neighbours_are() -> None:
    tree: RadixTree[str] = RadixTree()
    for name, tokens in {"a": [1, 2, 3, 4], "b": [1, 2, 3, 4], "c": [1, 2], "d": [1, 2, 9]}.items():
        tree.insert(tokens, name)
    tree.remove("a")
    assert found(tree, [1, 2, 3, 4, 5]) == {"b": 4, "c": 2, "d": 2}
    tree.remove("b")
    tree.remove("c")
    assert found(tree, [1, 2, 3, 4]) == {"d": 2}
    assert (tree.sequence("d"), list(tree)) == ([1, 2, 9], ["d"])
    tree.remove("d")
    assert not tree
    assert found(tree, [1, 2]) == {}


TOKENS = st.lists(st.integers(0, 2), max_size=12)


@given(st.lists(st.tuples(TOKENS, st.integers(0, 9)), max_size=40), TOKENS)
def test_everything_is_found_with_what_it_shares_longest_first(
    steps: list[tuple[list[int], int]], asked: list[int]
) -> None:
    tree: RadixTree[int] = RadixTree()
    held: dict[int, list[int]] = {}
    for tokens, item in steps:
        if item in held:
            tree.remove(item)
            del held[item]
        else:
            tree.insert(tokens, item)
            held[item] = tokens
        for query in (asked, tokens):
            lengths = [shared for _, shared in tree.find(query)]
            assert lengths == sorted(lengths, reverse=True)
            expected = {item: num_common(query, tokens) for item, tokens in held.items()}
            assert dict(tree.find(query)) == {item: shared for item, shared in expected.items() if shared}
        assert {item: tree.sequence(item) for item in tree} == held
    assert len(tree) == len(held)
