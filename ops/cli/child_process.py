"""What `edge` and `worker` do when `up` is their parent: end with it, and tell it when they serve."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


def child_options(function: Function) -> Function:
    """The options only `up` uses."""
    for option in (
        click.option("--ready-file", type=click.Path(path_type=Path), hidden=True),
        click.option("--parent", type=int, hidden=True, is_eager=True, callback=_follow_parent, expose_value=False),
    ):
        function = option(function)
    return function


def tell_ready(ready_file: Path | None, facts: dict[str, Any]) -> None:
    """Write what `up` waits for; without it nobody waits."""
    from ops.supervisor.run_file import write_whole

    if ready_file is not None:
        write_whole(ready_file, json.dumps(facts))


def _follow_parent(_ctx: click.Context, _parameter: click.Parameter, parent: int | None) -> None:
    from ops.supervisor.parent import die_with_parent

    if parent is not None:
        die_with_parent(parent)
