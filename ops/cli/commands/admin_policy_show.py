"""`inferctl admin policy show`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options

if TYPE_CHECKING:
    from ops.client.client import Client

COLUMNS = ("rule", "value", "source")


@click.command()
@client_options
def command(client: "Client", as_json: bool) -> None:
    """Show what is allowed, and where each rule comes from: the configuration file, or the store."""
    from ops.cli.tables import print_table

    policy = client.get("/v1/admin/policy")
    if as_json:
        print_json(policy)
        return
    print_table(COLUMNS, list(_rows(policy)))
    if policy["fault"] is not None:
        click.echo(f"the newest version is not used: {policy['fault']}", err=True)


def _rows(policy: dict[str, Any]) -> Iterator[tuple[str, object, str]]:
    yield "version", policy["version"], policy["encryption"] or "nothing is stored"
    for source in ("file", "store"):
        yield "api_keys", policy["api_keys"][source], source
    yield "api_keys.revoked", policy["api_keys"]["revoked"], "store"
    for name, section in policy["sections"].items():
        for place, value in _leaves(name, section["value"]):
            yield place, value, section["source"]


def _leaves(place: str, value: Any) -> Iterator[tuple[str, object]]:
    """Each value that is not a map, under its dotted name."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(f"{place}.{name}", inner)
    elif isinstance(value, list):
        yield place, ", ".join(map(str, value))
    else:
        yield place, "" if value in (None, {}) else value
