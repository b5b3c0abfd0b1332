"""`inferctl admin policy export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options

if TYPE_CHECKING:
    from ops.client.client import Client


@click.command()
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File to write.")
@click.option("--passphrase", "asks", is_flag=True, help="Encrypt with another one: a prompt, or standard input.")
@client_options
def command(client: "Client", as_json: bool, out: Path, asks: bool) -> None:
    """Write the stored policy to a file, encrypted, that only its owner can read.

    Without --passphrase it opens with what the store is encrypted with: the passphrase, or the key file of this
    installation.
    """
    from ops.cli.secret_input import read_secret
    from ops.errors import Failure
    from producer.policy.copy import write_private

    body: dict[str, Any] = {"passphrase": read_secret("Passphrase", confirm=True)} if asks else {}
    envelope = client.post_for_bytes("/v1/admin/policy/export", body)
    try:
        write_private(out, envelope)
    except OSError as error:
        raise Failure(f"{out}: {error.strerror}") from None
    print_json({"path": str(out), "bytes": len(envelope)}) if as_json else click.echo(f"wrote {out}")
