"""`inferflux topology credentials`."""

import os
from pathlib import Path

import click


@click.command()
@click.option("--out", metavar="DIR", help="Folder for the files, one a role. [default: <data-dir>/nats/creds]")
@click.option("--data-dir", metavar="PATH", help="Where state lives. [default: ~/.inferflux; INFERFLUX_DATA_DIR]")
@click.option("--tenant", "tenants", multiple=True, metavar="ID", help="Also a login that publishes its batches.")
@click.option("--accounts", metavar="FILE", help="Write the account there, mode 0600, and do not print it.")
def command(out: str | None, data_dir: str | None, tenants: tuple[str, ...], accounts: str | None) -> None:
    """Make a login for each role where there is none yet, and print the account for nats-server's configuration.

    The files have mode 0600. Give the folder, or the one file a process needs, to --nats-credentials. The account has
    the passwords in it.
    """
    from broker.credentials import accepted_logins, create_credentials, write_private
    from broker.errors import BrokerError
    from broker.server_config import render_account
    from ops.errors import Failure
    from ops.serving.broker import credentials_dir
    from ops.settings.loader import data_dir as resolve_data_dir

    folder = Path(out).expanduser() if out else credentials_dir(resolve_data_dir(os.environ, data_dir))
    try:
        create_credentials(folder, tenants)
        account = render_account(accepted_logins(folder))
        if accounts is not None:
            write_private(Path(accounts).expanduser(), account)
    except (BrokerError, OSError, ValueError) as error:
        raise Failure(f"{folder}: {error}") from None
    if accounts is None:
        click.echo(account, nl=False)
    click.echo(f"# logins in {folder}", err=True)
