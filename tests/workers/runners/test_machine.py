"""Processors and cores."""

import os
from pathlib import Path

import pytest

from workers.runners import machine
from workers.runners.machine import Processor, num_cores, num_processors


@pytest.fixture
def processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder in which so many processors have these siblings, and a process that may run on all of them."""

    def processors_(siblings: list[str]) -> Path:
        for number, text in enumerate(siblings):
            (tmp_path / f"cpu{number}" / "topology").mkdir(parents=True)
            (tmp_path / f"cpu{number}" / "topology" / "thread_siblings_list").write_text(text)
        monkeypatch.setattr(machine, "_usable", lambda: set(range(len(siblings))))
        monkeypatch.setattr(machine, "_CGROUP", tmp_path)
        return tmp_path

    return processors_


@pytest.mark.parametrize(
    ("siblings", "cores"), [(["0"], 1), (["0", "1"], 2), (["0-1", "0-1"], 1), (["0,2", "1,3", "0,2", "1,3"], 2)]
)
def test_processors_of_one_core_are_siblings(processors, siblings: list[str], cores: int) -> None:
    assert num_cores(processors(siblings)) == cores


def test_a_quota_counts_for_cores_too(processors) -> None:
    folder = processors(["0", "1", "2", "3"])
    (folder / "cpu.max").write_text("150000 100000\n")
    assert (num_cores(folder), num_processors()) == (2, 2)


def test_where_the_system_does_not_tell_a_processor_is_a_core(tmp_path: Path) -> None:
    assert num_cores(tmp_path) == num_processors() <= (os.cpu_count() or 1)


def test_an_identity_is_of_name_and_flags_in_any_order() -> None:
    one = Processor("A", frozenset({"avx2", "fma"}))
    assert one.identity == Processor("A", frozenset({"fma", "avx2"})).identity
    assert len({one.identity, Processor("B", one.flags).identity, Processor("A", frozenset({"avx2"})).identity}) == 3
