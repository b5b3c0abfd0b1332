"""`inferctl batch status`."""

from typing import TYPE_CHECKING

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options

if TYPE_CHECKING:
    from ops.client.client import Client


@click.command()
@click.argument("batch_id", metavar="[ID]", required=False)
@click.option("--follow", "follows", is_flag=True, help="With ID: until it has ended. Ctrl-C leaves it running.")
@client_options
def command(client: "Client", as_json: bool, batch_id: str | None, follows: bool) -> int:
    """How far a batch is, or the last hundred of your own.

    \b
      inferctl batch status
      inferctl batch status ID --follow

    With --follow the exit code is 0 only when each line has its answer. With --json the batch or the list as
    /v1/batches has it.
    """
    from ops.cli.batch_view import follow, print_batch, print_batches
    from ops.client.batches import batch_path

    if batch_id is None:
        if follows:
            raise click.UsageError("--follow needs an ID.")
        body = client.get("/v1/batches?limit=100")
        print_json(body) if as_json else print_batches(body["data"])
        return 0
    batch = client.get(batch_path(batch_id))
    if follows:
        return follow(client, batch, as_json=as_json)
    print_json(batch) if as_json else print_batch(batch)
    return 0
