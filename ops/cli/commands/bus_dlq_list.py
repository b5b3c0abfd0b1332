"""`inferctl bus dlq list`."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_json
from ops.cli.bus_session import bus_options

if TYPE_CHECKING:
    from broker.connection import Connection

COLUMNS = ("time", "id", "model", "priority", "owner", "tenant", "attempts", "reason")


@click.command()
@bus_options
def command(bus: Mapping[str, Any], as_json: bool) -> None:
    """List the requests that were given up, oldest first."""
    from broker.dead_letters import DeadLetters
    from broker.roles import Role
    from ops.cli.bus_session import visit
    from ops.cli.letters import summary
    from ops.cli.tables import print_table

    async def look(connection: "Connection") -> list[dict[str, Any]]:
        return [summary(letter) async for letter in DeadLetters(connection).all()]

    found = asyncio.run(visit(bus, Role.INSPECTOR_FULL, look))
    if as_json:
        print_json({"object": "list", "data": found})
    elif found:
        print_table(COLUMNS, [[each[column] for column in COLUMNS] for each in found])
