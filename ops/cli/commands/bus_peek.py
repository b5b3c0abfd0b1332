"""`inferctl bus peek`."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_json
from ops.cli.bus_session import bus_options

if TYPE_CHECKING:
    from broker.connection import Connection


@click.command()
@click.argument("target", metavar="SUBJECT|STREAM")
@click.option("--last", type=click.IntRange(0, 10_000), default=10, show_default=True, help="The latest N.")
@click.option("--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--text", "with_text", is_flag=True, help="Show prompts, answers and other bodies too.")
@bus_options
def command(bus: Mapping[str, Any], target: str, last: int, follow: bool, with_text: bool, as_json: bool) -> None:
    """Show messages as they are stored: requests, journals, dead letters, the registry.

    \b
      inferctl bus peek requests                     # what waits or runs, of all models
      inferctl bus peek 'inferflux.tok.*.ID.*'       # the journal of a request
      inferctl bus peek tokens --follow --text
      inferctl bus peek models --last 3 --json

    A stream may be named in short (requests, tokens, dlq, models). Of a request and its answer only sizes are shown
    without --text. Reading needs the login of the role inspector-full; with inspector's alone the subjects are listed,
    each with its number of messages. What --follow shows was published; the stream may have refused it.

    With --json one object a line: stream, seq, time, subject, request_id, kind, bytes, headers, body, problem; with
    inspector's login stream, subject, messages.
    """
    from broker.inspection import find_target
    from broker.peeking import count_subjects, last_messages
    from broker.peeking import follow as follow_messages
    from broker.roles import Role
    from ops.bus.messages import describe, line
    from ops.cli.bus_session import may_read, visit
    from ops.cli.terminal_text import shown

    async def read(connection: "Connection") -> None:
        found = await find_target(connection, target)

        def show(seen: Any) -> None:
            message = describe(found.stream, seen, with_text=with_text)
            print_json(message) if as_json else click.echo(shown(line(message)))

        if follow:
            async for seen in follow_messages(connection, found, last):
                show(seen)
        else:
            for seen in await last_messages(connection, found, last):
                show(seen)

    async def count(connection: "Connection") -> None:
        found = await find_target(connection, target)
        for subject, messages in (await count_subjects(connection, found)).items():
            if as_json:
                print_json({"stream": found.stream, "subject": subject, "messages": messages})
            else:
                click.echo(f"{subject}  {messages}")

    if may_read(bus):
        asyncio.run(visit(bus, Role.INSPECTOR_FULL, read))
        return
    if follow or with_text:
        raise click.UsageError("--follow and --text need the login of the role inspector-full")
    asyncio.run(visit(bus, Role.INSPECTOR, count))
    click.echo("The login of inspector-full shows the messages themselves.", err=True)
