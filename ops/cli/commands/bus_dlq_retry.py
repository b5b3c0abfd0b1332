"""`inferctl bus dlq retry`."""

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
    """Queue a request that was given up again, and print its new id.

    It is a new request of the same owner, with as much time as it had at first; its owner follows it by the new id.
    """
    from broker.requeue import requeue
    from broker.roles import Role
    from ops.cli.bus_session import visit
    from ops.cli.letters import find_letter
    from ops.errors import Failure
    from schemas.codec import CodecError
    from schemas.errors import ServingError

    async def retry(connection: "Connection") -> tuple[str, str]:
        letter = await find_letter(connection, request_id)
        try:
            return letter.request_id, await requeue(connection, letter)
        except (CodecError, ServingError) as error:
            raise Failure(f"not queued: {error}") from None

    retried, new_id = asyncio.run(visit(bus, Role.EDGE, retry))
    print_json({"id": new_id, "retried": retried}) if as_json else click.echo(new_id)
