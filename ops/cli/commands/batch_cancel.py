"""`inferctl batch cancel`."""

from typing import TYPE_CHECKING

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options

if TYPE_CHECKING:
    from ops.client.client import Client


@click.command()
@click.argument("batch_id", metavar="ID")
@client_options
def command(client: "Client", as_json: bool, batch_id: str) -> None:
    """Begin no more lines of a batch. What has been answered can still be read."""
    from ops.client.batches import batch_path

    batch = client.post(f"{batch_path(batch_id)}/cancel", {})
    print_json(batch) if as_json else click.echo(f"{batch['id']} {batch['status']}")
