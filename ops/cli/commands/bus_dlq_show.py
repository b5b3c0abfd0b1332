"""`inferctl bus dlq show`."""

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
@click.option("--text", "with_text", is_flag=True, help="Show the prompt too.")
@bus_options
def command(bus: Mapping[str, Any], request_id: str, with_text: bool, as_json: bool) -> None:
    """Show a request that was given up: headers and parameters, and the prompt with --text."""
    from broker.dead_letters import DeadLetters
    from broker.errors import BlobMissing
    from broker.roles import Role
    from ops.cli.bus_session import visit
    from ops.cli.letters import details, find_letter, lines, summary
    from schemas.codec import CodecError

    async def look(connection: "Connection") -> dict[str, Any]:
        letter = await find_letter(connection, request_id)
        try:
            request = await DeadLetters(connection).request(letter)
        except (BlobMissing, CodecError) as error:
            return {**summary(letter), "unreadable": str(error), "headers": letter.headers}
        return details(letter, request, with_text=with_text)

    facts = asyncio.run(visit(bus, Role.INSPECTOR_FULL, look))
    if as_json:
        print_json(facts)
    else:
        click.echo("\n".join(lines(facts)))
