"""`inferctl admin policy rotate-passphrase`."""

from typing import TYPE_CHECKING

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options

if TYPE_CHECKING:
    from ops.client.client import Client


@click.command()
@client_options
def command(client: "Client", as_json: bool) -> None:
    """Encrypt the stored policy with another passphrase, from a prompt or standard input.

    Versions under the old one are dropped. Then start each edge again with INFERFLUX_POLICY_PASSPHRASE set to the new
    one: until then it goes on with the rules of this moment and takes no changes.
    """
    from ops.cli.secret_input import read_secret

    policy = client.post("/v1/admin/policy/passphrase", {"passphrase": read_secret("New passphrase", confirm=True)})
    if as_json:
        print_json(policy)
    else:
        click.echo(
            f"version {policy['version']} holds under the new passphrase; "
            "set INFERFLUX_POLICY_PASSPHRASE to it and start each edge again"
        )
