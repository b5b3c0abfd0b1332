"""`inferflux topology credentials`."""

import json
import os
from pathlib import Path

import click


@click.command()
@click.option("--out", metavar="DIR", help="Folder for the files, one a role. [default: <data-dir>/nats/creds]")
@click.option("--data-dir", metavar="PATH", help="Where state lives. [default: ~/.inferflux; INFERFLUX_DATA_DIR]")
def command(out: str | None, data_dir: str | None) -> None:
    """Make a login for each role where there is none yet, and print the account for nats-server's configuration.

    The files have mode 0600. Give the folder, or the one file a process needs, to --nats-credentials.
    """
    from broker.credentials import create_credentials
    from broker.errors import BrokerError
    from broker.roles import permissions
    from ops.errors import Failure
    from ops.serving.broker import credentials_dir
    from ops.settings.loader import data_dir as resolve_data_dir

    folder = Path(out).expanduser() if out else credentials_dir(resolve_data_dir(os.environ, data_dir))
    try:
        logins = create_credentials(folder)
    except (BrokerError, OSError) as error:
        raise Failure(f"{folder}: {error}") from None
    click.echo("accounts { INFERFLUX: { jetstream: enabled, users: [")
    for role, login in logins.items():
        granted = permissions(role)
        allowed: dict[str, object] = {
            "publish": {"allow": granted.publish},
            "subscribe": {"allow": granted.subscribe},
        }
        if granted.responds:
            allowed["allow_responses"] = True
        click.echo(f"  {json.dumps({'user': login.user, 'password': login.password, 'permissions': allowed})}")
    click.echo("] } }")
    click.echo(f"# logins in {folder}", err=True)
