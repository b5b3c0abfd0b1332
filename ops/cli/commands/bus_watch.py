"""`inferctl bus watch`."""

import asyncio
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_json
from ops.cli.bus_session import bus_options

if TYPE_CHECKING:
    from broker.connection import Connection

_SHOWN_APART = ("time", "request_id", "event", "source")


@click.command()
@click.option("--model", metavar="ID", help="Only requests for this model.")
@click.option("--request", "request_id", metavar="ID", help="Only this request.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="Leave after N lines. [default: Ctrl-C]")
@bus_options
def command(
    bus: Mapping[str, Any], model: str | None, request_id: str | None, count: int | None, as_json: bool
) -> None:
    """Show each step of requests as it happens: accepted, started, first token, ended, and what goes wrong.

    \b
      inferctl bus watch
      inferctl bus watch --model smollm2-135m --json | jq .event
      inferctl bus watch --request chatcmpl-ID

    No text of a request is in it. With --json one object a line, with time, request_id, event, source (the edge or
    worker that tells it), model, and the step's own numbers. What nobody watches is not kept.
    """
    from broker.peeking import transitions
    from broker.roles import Role
    from ops.cli.bus_session import visit
    from ops.cli.letters import bare_id
    from ops.cli.terminal_text import shown
    from ops.errors import Failure

    async def watch(connection: "Connection") -> None:
        async with transitions(connection, None if request_id is None else bare_id(request_id)) as next_line:
            click.echo("watching; Ctrl-C leaves", err=True)
            num_shown = 0
            while count is None or num_shown < count:
                step = _parse(await next_line())
                if step is None or (model is not None and step.get("model") != model):
                    continue
                print_json(step) if as_json else click.echo(shown(_line(step)))
                num_shown += 1

    try:
        asyncio.run(visit(bus, Role.INSPECTOR, watch))
    except ValueError as error:
        raise Failure(str(error)) from None


def _parse(line: bytes) -> dict[str, Any] | None:
    """None for what is not one of ours."""
    try:
        step = json.loads(line)
        return step if isinstance(step, dict) and isinstance(step.get("time"), int | float) else None
    except ValueError:
        return None


def _line(step: dict[str, Any]) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(step["time"])) + f".{int(step['time'] % 1 * 1000):03}"
    numbers = " ".join(f"{name}={value}" for name, value in step.items() if name not in _SHOWN_APART)
    return f"{clock}  {step.get('request_id', '?')}  {step.get('event', '?'):<12}  {step.get('source', '?')}  {numbers}"
