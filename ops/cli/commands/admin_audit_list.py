"""`inferctl admin audit list`."""

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options

if TYPE_CHECKING:
    from ops.client.client import Client

COLUMNS = ("at", "action", "outcome", "actor", "target", "reason", "request", "details")


@click.command()
@click.option("--since", metavar="TIME", help="Such as 2027-01-31 or 2027-01-31T12:00:00Z; UTC unless it says so.")
@click.option("--until", metavar="TIME")
@click.option("--actor", metavar="ID", help="Who did it: the id of a key or the subject of a token.")
@click.option("--action", metavar="NAME", help="Such as api_key.revoke, or api_key for all of them.")
@click.option("--outcome", type=click.Choice(["allowed", "denied", "failed"]))
@click.option("--after", metavar="ID", help="Go on behind this record.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--order", type=click.Choice(["desc", "asc"]), default="desc", show_default=True, help="Newest first?")
@client_options
def command(client: "Client", as_json: bool, **filters: Any) -> None:
    """List records, newest first."""
    from ops.cli.tables import print_table

    given = {name: value for name, value in filters.items() if value is not None}
    body = client.get(f"/v1/admin/audit?{urlencode(given)}")
    if as_json:
        print_json(body)
        return
    if body["data"]:
        print_table(COLUMNS, [_row(record) for record in body["data"]])
    if body["has_more"]:
        click.echo(f"There are more: --after {body['last_id']}", err=True)


def _row(record: dict[str, Any]) -> list[object]:
    details = ", ".join(f"{name}={value}" for name, value in record.get("details", {}).items())
    names = ("at", "action", "outcome", "actor", "target", "reason", "request_id")
    return [*(record.get(name) for name in names), details]
