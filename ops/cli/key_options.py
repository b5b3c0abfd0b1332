"""Options of `inferctl admin api-keys` that say what a key opens, and how keys are printed."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])

LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "tokens_per_day")
COLUMNS = ("id", "name", "source", "status", "scopes", "tenant", "models", "ceiling", "expires")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType[int]):
    """Seconds, from texts such as 90s, 30m, 12h and 30d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d{1,9})([smhd]?)", str(value))
        if match is None:
            self.fail(f"{value!r} is not a duration such as 90s, 30m, 12h or 30d", param, ctx)
        return int(match.group(1)) * _UNITS[match.group(2) or "s"]


def rights_options(function: Function) -> Function:
    """Add the options; the function gets `rights`, those that were given as fields of a body."""
    for option in reversed(
        (
            click.option("--scope", "scopes", multiple=True, type=click.Choice(["generate", "read", "admin"])),
            click.option("--model", "models", multiple=True, metavar="GLOB", help="Models it may use, `*` for all."),
            click.option("--ceiling", type=click.Choice(["high", "normal", "low", "batch"]), help="Highest class."),
            click.option("--limit", "limits", multiple=True, metavar="NAME=N", help=f"One of {', '.join(LIMITS)}."),
        )
    ):
        function = option(function)
    return function


def rights(scopes: Sequence[str], models: Sequence[str], ceiling: str | None, limits: Sequence[str]) -> dict[str, Any]:
    """Fields of a body, those that were given."""
    fields: dict[str, Any] = {"scopes": list(scopes), "models": list(models), "ceiling": ceiling}
    fields["limits"] = dict(_limit(text) for text in limits)
    return {name: value for name, value in fields.items() if value}


def _limit(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in LIMITS or not number.isdigit():
        raise click.UsageError(f"--limit {text}: NAME=N is expected, with NAME one of {', '.join(LIMITS)}")
    return name, int(number)


def row(key: dict[str, Any]) -> tuple[object, ...]:
    return (
        key["id"],
        key["name"],
        key["source"],
        key["status"],
        "+".join(key["scopes"]),
        key["tenant"],
        ", ".join(key["models"]),
        key["ceiling"],
        time_of(key["expires_at"]),
    )


def time_of(unix_time: int | None) -> str | None:
    return None if unix_time is None else datetime.fromtimestamp(unix_time, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def print_new_key(key: dict[str, Any], as_json: bool) -> None:
    """The key alone on stdout, so that it can be piped into where it belongs."""
    from ops.cli.answers import print_json

    if as_json:
        print_json(key)
        return
    click.echo(key["key"])
    click.echo(f"{key['name']} has the id {key['id']}. The key is shown this once.", err=True)
