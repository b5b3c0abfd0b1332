"""Which runs are computed together."""

from types import SimpleNamespace
from typing import cast

import pytest

pytest.importorskip("mlx.core", reason="mlx is not installed; run: make setup PARTS=mlx")

from workers.runners.mlx.groups import group_runs
from workers.runners.mlx.runs import Run
from workers.runners.mlx.sequence_kv import SequenceKv

pytestmark = pytest.mark.mlx


def grouped(*shapes: tuple[int, int], max_padding: int) -> list[list[tuple[int, int]]]:
    """(tokens before, new tokens) of each run, by group."""
    runs = [
        Run(cast(SequenceKv, SimpleNamespace(length=before)), start, [0] * count, [])
        for start, (before, count) in enumerate(shapes)
    ]
    return [[(run.sequence.length, len(run.tokens)) for run in group] for group in group_runs(runs, max_padding)]


def test_decodes_are_one_group_beside_the_prompts() -> None:
    groups = grouped((10, 1), (0, 30), (20, 1), (15, 1), max_padding=1000)
    assert groups == [[(0, 30)], [(20, 1), (15, 1), (10, 1)]]


def test_prompts_of_about_one_length_go_together() -> None:
    assert grouped((0, 30), (0, 39), (0, 40), (0, 9), max_padding=1000) == [[(0, 40), (0, 39), (0, 30)], [(0, 9)]]


def test_a_decode_far_longer_than_the_others_goes_alone() -> None:
    assert grouped((4000, 1), (10, 1), (20, 1), max_padding=1000) == [[(4000, 1)], [(20, 1), (10, 1)]]
    assert grouped((4000, 1), (10, 1), (20, 1), max_padding=7970) == [[(4000, 1), (20, 1), (10, 1)]]


def test_a_chunk_with_a_long_beginning_counts_its_beginning() -> None:
    assert grouped((900, 38), (0, 40), max_padding=100) == [[(0, 40)], [(900, 38)]]
    assert grouped((900, 38), (0, 40), max_padding=898) == [[(0, 40), (900, 38)]]
