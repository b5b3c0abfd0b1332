"""What is measured, from the names of cells."""

from pathlib import Path

import click
import pytest

from ops.bench.cells import Cell
from ops.bench.option_types import cells
from ops.bench.page import write_page
from ops.bench.plan import BenchPlan

CONTEXT = click.Context(click.Command("bench"))
OPTION = click.Option(["--cells"])


def plan(*chosen: Cell) -> BenchPlan:
    return BenchPlan(
        model=None,
        arms=("ours",),
        concurrency=(1, 8),
        shared=16,
        rounds=1,
        requests=12,
        max_tokens=64,
        threads=2,
        context=0,
        cells=chosen,
    )


def test_names_come_in_one_order_and_once() -> None:
    assert cells(CONTEXT, OPTION, "overhead,chat,chat") == (Cell.CHAT, Cell.OVERHEAD)
    assert cells(CONTEXT, OPTION, "all") == tuple(Cell)


def test_another_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(click.BadParameter, match="'speed' is not one of chat, shared, long-prompts"):
        cells(CONTEXT, OPTION, "chat,speed")


def test_loads_of_each_cell() -> None:
    assert [load.name for load in plan(Cell.CHAT, Cell.SHARED).loads] == ["c=1", "c=8", "shared c=16"]
    loads = plan(Cell.LONG_PROMPTS, Cell.LONG_ANSWERS).loads
    assert [load.name for load in loads] == [
        "long-prompts c=4",
        "long-prompts c=8",
        "long-answers c=4",
        "long-answers c=8",
    ]
    assert [load.max_tokens for load in loads] == [64, 64, 512, 512]
    assert plan(Cell.OVERHEAD).loads == ()


def test_servers_are_started_apart_for_long_texts() -> None:
    short, long = plan(Cell.CHAT, Cell.LONG_PROMPTS).settings(None)
    assert (short.sequences, short.context) == (8, 256)
    assert (long.sequences, long.context) == (8, 1864)
    assert [part.context for part in plan(*Cell).settings(4096)] == [4096, 4096]


def test_a_run_writes_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sys.argv", ["bench", "--cells", "chat", "--llama-server", "/opt/x/llama-server", "--write-docs"]
    )
    write_page("# Heading\n\nrest\n", tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert text.startswith("# Heading\n\n") and text.endswith("\n\nrest\n")
    assert "python -m ops.bench --cells chat --llama-server llama-server\n" in text
