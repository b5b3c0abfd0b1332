"""`inferctl admin requests`."""

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options

if TYPE_CHECKING:
    from ops.client.client import Client

_PATH = "/v1/admin/requests"
FIELDS = ("id", "model", "priority", "tenant", "owner", "edge", "state", "worker", "age_s", "tokens")


@click.command()
@click.option("--list", "lists", is_flag=True, help="Show those that wait or run. Also without any option.")
@click.option("--model", metavar="ID", help="Of this model.")
@click.option("--tenant", metavar="NAME")
@click.option("--state", type=click.Choice(["queued", "running"]))
@click.option("--limit", type=click.IntRange(1, 1000), help="So many, the oldest first. [default: 100]")
@click.option("--show", metavar="ID", help="Show one.")
@click.option("--cancel", metavar="ID", help="End one, whosever it is, with all prompts of its call.")
@client_options
def command(client: "Client", as_json: bool, lists: bool, show: str | None, cancel: str | None, **filters: Any) -> None:
    """Show and cancel the requests of all edges, without their text.

    \b
      inferctl admin requests --list --state queued
      inferctl admin requests --cancel 0123456789abcdef0123456789abcdef
    """
    given = {name: value for name, value in filters.items() if value is not None}
    if (lists or bool(given)) + (show is not None) + (cancel is not None) > 1:
        raise click.UsageError("--list with its filters, --show and --cancel exclude each other.")
    if cancel is not None:
        cancelled = client.send("DELETE", f"{_PATH}/{quote(cancel, safe='')}")
        said = "cancelled" if cancelled["cancelled"] else "had ended before"
        print_json(cancelled) if as_json else click.echo(f"{cancelled['id']} {said}")
        return
    path = f"{_PATH}?{urlencode(given)}" if given else _PATH
    body = client.get(path if show is None else f"{_PATH}/{quote(show, safe='')}")
    if as_json:
        print_json(body)
        return
    from ops.cli.tables import print_table

    requests = body["data"] if body["object"] == "list" else [body]
    print_table(FIELDS, [[request[name] for name in FIELDS] for request in requests])
    if body.get("truncated"):
        click.echo("There may be more: narrow the filter or raise --limit", err=True)
