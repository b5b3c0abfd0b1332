"""`inferctl status`."""

from typing import TYPE_CHECKING

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options
from ops.cli.commands.models import print_models
from ops.errors import Failure

if TYPE_CHECKING:
    from ops.client.client import Client


@click.command()
@click.option(
    "--wait", "wait_s", type=click.FloatRange(0), default=0, metavar="SECONDS", help="Wait until it is ready."
)
@client_options
def command(client: "Client", wait_s: float, as_json: bool) -> None:
    """What runs, and whether it is ready. Exit code 1 when it is not.

    \b
      inferctl status
      inferctl status --wait 60 && inferctl completion --prompt "Once upon a time"

    With --json an object with ready, reason, version and models, as in the body of /v1/models.
    """
    from ops.cli.progress import Progress
    from ops.client.status import read_status

    with Progress("waiting until it is ready"):
        status = read_status(client, wait_s)
    if as_json:
        print_json(status.as_json())
    else:
        click.echo(f"{client.base_url}  version {status.version}  {'ready' if status.is_ready else 'not ready'}")
        print_models(status.models)
    if not status.is_ready:
        raise Failure(f"not ready: {status.reason}")
