"""Command line options that are made from the settings table, so that a flag is declared once."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from ops.settings.setting import Setting
from ops.settings.table import TABLE

Function = TypeVar("Function", bound=Callable[..., Any])


def setting_options(*rows: Setting[Any]) -> Callable[[Function], Function]:
    """Add an option for each row. Its text reaches `given_flags`; the loader reads and checks it."""

    def decorate(function: Function) -> Function:
        for row in reversed(rows):
            function = _option(row)(function)
        return function

    return decorate


def given_flags(params: Mapping[str, Any]) -> dict[str, str]:
    """Texts of the options of `setting_options` that were given, by flag, for the settings loader."""
    flags = {_parameter(row.flag): row.flag for row in TABLE if row.flag}
    return {
        flags[name]: "true" if value is True else str(value)
        for name, value in params.items()
        if name in flags and value not in (None, False)
    }


def _option(row: Setting[Any]) -> Callable[[Function], Function]:
    assert row.flag is not None
    help_text = row.help
    if row.kind.name == "boolean":
        return click.option(row.flag, is_flag=True, help=help_text)
    default = row.kind.show(row.default) if row.default is not None else ""
    notes = [f"default: {default}"] if default else []
    notes += [row.env] if row.env else []
    if notes:
        help_text += f" [{'; '.join(notes)}]"
    return click.option(row.flag, metavar=_metavar(row), help=help_text)


def _metavar(row: Setting[Any]) -> str:
    if row.kind.name == "choice":
        return f"[{row.kind.allowed.removeprefix('one of ').replace(', ', '|')}]"
    return row.kind.name.upper()


def _parameter(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")
