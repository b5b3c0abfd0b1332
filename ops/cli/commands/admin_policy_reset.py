"""`inferctl admin policy reset`."""

from typing import TYPE_CHECKING

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options

if TYPE_CHECKING:
    from ops.client.client import Client


@click.command()
@click.argument("section", type=click.Choice(["limits", "guardrails", "oidc", "routing"]))
@client_options
def command(client: "Client", as_json: bool, section: str) -> None:
    """Let the configuration file decide on a section again. Keys are revoked one by one, with `admin api-keys`."""
    policy = client.post("/v1/admin/policy/reset", {"section": section})
    print_json(policy) if as_json else click.echo(f"version {policy['version']} holds: {section} come from the file")
