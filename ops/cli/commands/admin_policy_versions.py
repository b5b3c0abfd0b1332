"""`inferctl admin policy versions`."""

from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options
from ops.cli.key_options import time_of

if TYPE_CHECKING:
    from ops.client.client import Client

COLUMNS = ("version", "changed", "by", "action", "target", "")


@click.command()
@client_options
def command(client: "Client", as_json: bool) -> None:
    """List the versions that are kept, oldest first: who changed what."""
    from ops.cli.tables import print_table

    body = client.get("/v1/admin/policy/versions")
    if as_json:
        print_json(body)
    else:
        print_table(COLUMNS, [_row(version) for version in body["data"]])


def _row(version: dict[str, Any]) -> tuple[object, ...]:
    note = "holds" if version["is_current"] else version["fault"]
    facts = (version[name] for name in ("changed_by", "action", "target"))
    return (version["version"], time_of(version["changed_at"]), *facts, note)
