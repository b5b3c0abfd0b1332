"""What `edge` and `worker` do for whoever starts them: end with `up`, and tell by a file that they serve."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


def child_options(function: Function) -> Function:
    """The options for `up`, and for probes of containers."""
    for option in (
        click.option("--ready-file", type=click.Path(path_type=Path), hidden=True, callback=_forget_last),
        click.option("--parent", type=int, hidden=True, is_eager=True, callback=_follow_parent, expose_value=False),
    ):
        function = option(function)
    return function


def tell_ready(ready_file: Path | None, facts: dict[str, Any]) -> None:
    """Write the file that is waited for; without it nobody waits."""
    from ops.supervisor.run_file import write_whole

    if ready_file is not None:
        write_whole(ready_file, json.dumps(facts))


def _forget_last(_ctx: click.Context, _parameter: click.Parameter, ready_file: Path | None) -> Path | None:
    """One that is left of an earlier process would say that this one serves."""
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)
    return ready_file


def _follow_parent(_ctx: click.Context, _parameter: click.Parameter, parent: int | None) -> None:
    from ops.supervisor.parent import die_with_parent

    if parent is not None:
        die_with_parent(parent)
