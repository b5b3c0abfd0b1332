"""`inferctl admin api-keys rotate`."""

from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from ops.cli.client_options import client_options
from ops.cli.key_options import Duration, print_new_key

if TYPE_CHECKING:
    from ops.client.client import Client


@click.command()
@click.argument("key", metavar="ID")
@click.option("--grace", type=Duration(), default="1h", show_default=True, help="How long the old secret still opens.")
@client_options
def command(client: "Client", as_json: bool, key: str, grace: int) -> None:
    """Give a key of the store, by id or name, a new secret and print it.

    With --grace 0 the old secret ends at once, and so do the streams that were begun with it.
    """
    print_new_key(client.post(f"/v1/admin/api_keys/{quote(key, safe='')}/rotate", {"grace_s": grace}), as_json)
