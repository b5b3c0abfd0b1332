"""`inferctl admin policy rollback`."""

from typing import TYPE_CHECKING

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options

if TYPE_CHECKING:
    from ops.client.client import Client


@click.command()
@click.argument("version", type=click.IntRange(1))
@client_options
def command(client: "Client", as_json: bool, version: int) -> None:
    """Make an earlier version the next one. Keys revoked since stay so, and rotated ones keep their new secrets."""
    policy = client.post("/v1/admin/policy/rollback", {"version": version})
    print_json(policy) if as_json else click.echo(f"version {policy['version']} holds, with the rules of {version}")
