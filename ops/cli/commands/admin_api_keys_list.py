"""`inferctl admin api-keys list`."""

from typing import TYPE_CHECKING

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options
from ops.cli.key_options import COLUMNS, row

if TYPE_CHECKING:
    from ops.client.client import Client


@click.command()
@client_options
def command(client: "Client", as_json: bool) -> None:
    """List all keys, those of the configuration file and those that were revoked too."""
    from ops.cli.tables import print_table

    body = client.get("/v1/admin/api_keys")
    if as_json:
        print_json(body)
    else:
        print_table(COLUMNS, [row(key) for key in body["data"]])
