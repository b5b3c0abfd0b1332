"""The live view of `inferctl top`: a screen that is drawn again for each report."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ops.cli.terminal_text import safe
from ops.errors import Failure
from ops.top.keys import single_keys
from ops.top.screen import Grid, grids, heading

QUIT = "qQ"
HINT = "q leaves"


def watch(where: str, interval_s: float, next_report: Callable[[], Mapping[str, Any]]) -> None:
    """Until q. A server that does not answer is said, and asked again; what was there before stays in view."""
    console = Console(highlight=False, markup=False)
    shown: list[RenderableType] = [Text(f"{where}  reading")]
    with single_keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(Group(*shown, Text(HINT, style="dim")), refresh=True)
            if keys.wait(QUIT, interval_s):
                return
            try:
                shown = _drawn(where, next_report())
            except Failure as failure:
                shown = [Text(safe(str(failure)), style="bold"), *shown[1:]]


def _drawn(where: str, report: Mapping[str, Any]) -> list[RenderableType]:
    lines = [Text(safe(line)) for line in heading(report, where)]
    tables = [part for grid in grids(report) if grid.rows for part in (Text(), _table(grid))]
    return [Group(*lines), *tables]


def _table(grid: Grid) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(grid.columns):
        table.add_column(column, justify="left" if place < grid.num_names else "right", overflow="ellipsis")
    for row in grid.rows:
        table.add_row(*map(safe, row))
    return table
