"""`inferctl admin api-keys revoke`."""

from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options

if TYPE_CHECKING:
    from ops.client.client import Client


@click.command()
@click.argument("key", metavar="ID")
@client_options
def command(client: "Client", as_json: bool, key: str) -> None:
    """End a key, by id or name, at every edge and for good; one of the configuration file too. Its streams end."""
    revoked = client.send("DELETE", f"/v1/admin/api_keys/{quote(key, safe='')}")
    print_json(revoked) if as_json else click.echo(f"revoked {revoked['id']}")
