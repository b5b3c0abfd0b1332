"""`inferctl admin policy import`."""

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options

if TYPE_CHECKING:
    from ops.client.client import Client


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--passphrase", "asks", is_flag=True, help="It has another one: a prompt, or standard input.")
@client_options
def command(client: "Client", as_json: bool, file: Path, asks: bool) -> None:
    """Make an exported file, or a copy of `policy.store`, the next version.

    Keys that were revoked here stay so. The file's keys need the pepper that they were made with.
    """
    from ops.cli.secret_input import read_secret
    from ops.errors import Failure

    try:
        envelope = file.read_bytes()
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}") from None
    body: dict[str, Any] = {"document": base64.b64encode(envelope).decode()}
    if asks:
        body["passphrase"] = read_secret("Passphrase")
    policy = client.post("/v1/admin/policy/import", body)
    print_json(policy) if as_json else click.echo(f"version {policy['version']} holds, with the rules of {file}")
