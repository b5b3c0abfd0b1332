"""`inferctl batch list`."""

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options

if TYPE_CHECKING:
    from ops.client.client import Client


@click.command()
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@click.option("--after", metavar="ID", help="Those before this one in time.")
@click.option("--all", "of_all", is_flag=True, help="Of all callers; needs the scope admin.")
@click.option("--tenant", metavar="NAME", help="With --all: of this tenant.")
@client_options
def command(client: "Client", as_json: bool, of_all: bool, **filters: Any) -> None:
    """The batches of the last six days, the newest first.

    \b
      inferctl batch list --limit 5
      inferctl batch list --all --tenant acme
    """
    from ops.cli.batch_view import print_batches

    if filters["tenant"] is not None and not of_all:
        raise click.UsageError("--tenant goes with --all.")
    query = urlencode({name: value for name, value in filters.items() if value is not None})
    body = client.get(f"{'/v1/admin/batches' if of_all else '/v1/batches'}?{query}")
    print_json(body) if as_json else print_batches(body["data"])
    if body["has_more"] and not as_json:
        click.echo(f"There are more: --after {body['last_id']}", err=True)
