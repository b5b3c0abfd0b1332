"""Values that options take, as click's callbacks."""

import click

from ops.bench.arms import NAMES
from ops.bench.cells import ALL, Cell


def arm_names(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    """Comma-separated names of arms, in the given order."""
    if text is None:
        return None
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in NAMES:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(NAMES)}")
    return names


def counts(_ctx: click.Context, _parameter: click.Parameter, text: str) -> tuple[int, ...]:
    """Comma-separated numbers above 0, in ascending order."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"{text!r} is not a list of numbers above 0")
    return tuple(sorted({int(part) for part in parts}))


def cells(_ctx: click.Context, _parameter: click.Parameter, text: str) -> tuple[Cell, ...]:
    """Comma-separated names of cells, or `all`, in the order of their definition."""
    names = set(text.split(","))
    for name in names - {ALL}:
        if name not in {str(cell) for cell in Cell}:
            raise click.BadParameter(f"{name!r} is not one of {', '.join((*Cell, ALL))}")
    return tuple(cell for cell in Cell if ALL in names or cell in names)
