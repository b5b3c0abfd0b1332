"""Tables for people. Machines ask for --json."""

import sys
from collections.abc import Sequence

WIDE = 200


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print with as much style as the terminal allows; None is an empty cell."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    # What goes into a file or a pipe is not broken into the width of a terminal.
    width = None if sys.stdout.isatty() else WIDE
    Console(highlight=False, markup=False, width=width).print(table)
