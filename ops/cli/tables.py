"""Tables for people. Machines ask for --json."""

import sys
from collections.abc import Sequence


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print with as much style as the terminal allows; None is an empty cell.

    Into a file or a pipe each row is one line, as wide as it is, with two spaces or more between cells.
    """
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        _print_lines([list(columns), *cells])
        return
    from rich.console import Console
    from rich.table import Table

    from ops.cli.terminal_text import safe

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        table.add_row(*map(safe, row))
    Console(highlight=False, markup=False).print(table)


def _print_lines(rows: list[list[str]]) -> None:
    import click

    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.replace("\n", " ").rstrip())
