"""`inferctl admin api-keys update`."""

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options
from ops.cli.key_options import COLUMNS, Duration, rights, rights_options, row

if TYPE_CHECKING:
    from ops.client.client import Client


@click.command()
@click.argument("key", metavar="ID")
@rights_options
@click.option("--name", help="Call it so.")
@click.option("--expires-in", type=Duration(), help="From now, such as 12h or 90d.")
@click.option("--never-expires", is_flag=True)
@click.option("--no-limits", is_flag=True, help="Back to the limits of all keys.")
@client_options
def command(
    client: "Client",
    as_json: bool,
    key: str,
    name: str | None,
    expires_in: int | None,
    never_expires: bool,
    no_limits: bool,
    **given: Any,
) -> None:
    """Change what a key of the store, by id or name, opens. What is not given stays."""
    import time

    from ops.cli.tables import print_table

    body = rights(**given)
    if name is not None:
        body["name"] = name
    if expires_in is not None:
        body["expires_at"] = int(time.time()) + expires_in
    if never_expires:
        body["expires_at"] = None
    if no_limits:
        body["limits"] = None
    updated = client.send("PATCH", f"/v1/admin/api_keys/{quote(key, safe='')}", body)
    if as_json:
        print_json(updated)
    else:
        print_table(COLUMNS, [row(updated)])
