"""The bench of single steps: what it is told to measure, and a run of it on a small model."""

import pytest
from click.testing import CliRunner

from ops.bench.step import Cell, command, parse_cells
from tests.support.models import why_no_torch
from tests.support.safetensors_folder import tiny_folder


def test_cells_are_sequences_rows_and_context() -> None:
    cells = parse_cells("1@100, 32@500,16x32@0")
    assert cells == [Cell(1, 1, 100), Cell(32, 1, 500), Cell(16, 32, 0)]
    assert [cell.name for cell in cells] == ["1@100", "32@500", "16x32@0"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("8", "'8' is not like"), ("0@100", "sequences"), ("33@100", "sequences"), ("2x300@0", "rows in all")],
)
def test_a_cell_that_cannot_be_is_refused_with_the_reason(text: str, reason: str) -> None:
    done = CliRunner().invoke(command, ["--cells", text])
    assert done.exit_code == 2
    assert reason in done.output


@pytest.mark.torch
@pytest.mark.skipif(bool(why_no_torch()), reason=why_no_torch() or "")
def test_every_cell_has_its_line() -> None:
    arguments = ["--cells", "1@20,3x5@17", "--engine", "2", "--seconds", "0", "--threads", "1"]
    done = CliRunner().invoke(command, [*arguments, "--model", str(tiny_folder("llama"))], catch_exceptions=False)
    assert done.exit_code == 0
    assert "| 1@20 " in done.output and "| 3x5@17 " in done.output
    assert done.output.count("| 2 ") == 2  # in the engine, greedily and not
