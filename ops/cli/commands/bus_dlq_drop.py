"""`inferctl bus dlq drop`."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_json
from ops.cli.bus_session import bus_options

if TYPE_CHECKING:
    from broker.connection import Connection


@click.command()
@click.argument("request_id", metavar="ID")
@bus_options
def command(bus: Mapping[str, Any], request_id: str, as_json: bool) -> None:
    """Remove a request that was given up, prompt and all."""
    from broker.dead_letters import DeadLetters
    from broker.roles import Role
    from ops.cli.bus_session import visit
    from ops.cli.letters import find_letter

    async def drop(connection: "Connection") -> str:
        letter = await find_letter(connection, request_id)
        await DeadLetters(connection).drop(letter)
        return letter.request_id

    dropped = asyncio.run(visit(bus, Role.EDGE, drop))
    print_json({"id": dropped, "dropped": True}) if as_json else click.echo(f"dropped {dropped}")
