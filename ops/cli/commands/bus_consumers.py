"""`inferctl bus consumers`."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_json
from ops.cli.bus_session import bus_options

if TYPE_CHECKING:
    from broker.connection import Connection
    from broker.inspection import ConsumerFacts

COLUMNS = ("stream", "consumer", "model", "class", "waiting", "in hand", "redelivered", "pulls")


@click.command()
@click.argument("stream", required=False)
@bus_options
def command(bus: Mapping[str, Any], stream: str | None, as_json: bool) -> None:
    """List the consumers of a stream, or of all: what waits for them, and what they have in hand.

    \b
      inferctl bus consumers requests      # the queues: one for each model and class
      inferctl bus consumers --json

    Waiting is what was not delivered yet (pending), in hand what was delivered and not acknowledged (ack_pending),
    pulls the workers that ask for more.
    """
    from broker.inspection import find_stream, list_consumers, list_streams
    from broker.roles import Role
    from ops.cli.bus_session import visit
    from ops.cli.tables import print_table

    async def look(connection: "Connection") -> "list[ConsumerFacts]":
        if stream is not None:
            return await list_consumers(connection, await find_stream(connection, stream))
        names = [each.name for each in await list_streams(connection) if each.consumers]
        return [each for name in names for each in await list_consumers(connection, name)]

    found = asyncio.run(visit(bus, Role.INSPECTOR, look))
    if as_json:
        print_json({"object": "list", "data": [each._asdict() for each in found]})
        return
    rows = [
        (each.stream, each.name, each.model, each.priority, each.pending, each.ack_pending, each.redelivered,
         each.waiting_pulls)
        for each in found
    ]  # fmt: skip
    print_table(COLUMNS, rows)
