"""`inferflux topology credentials`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from broker.roles import User

ALL = "all"


@click.command()
@click.option("--out", metavar="DIR", help="Folder for the files, one a role. [default: <data-dir>/nats/creds]")
@click.option("--data-dir", metavar="PATH", help="Where state lives. [default: ~/.inferflux; INFERFLUX_DATA_DIR]")
@click.option("--tenant", "tenants", multiple=True, metavar="ID", help="Also a login that publishes its batches.")
@click.option("--accounts", metavar="FILE", help="Write the account there, mode 0600, and do not print it.")
@click.option("--rotate", "rotated", multiple=True, metavar="ROLE", help=f"Exchange a login; `{ALL}`: each of them.")
@click.option("--finish", is_flag=True, help="Second step of an exchange, once the servers take the new logins.")
def command(
    out: str | None,
    data_dir: str | None,
    tenants: tuple[str, ...],
    accounts: str | None,
    rotated: tuple[str, ...],
    finish: bool,
) -> None:
    """Make a login for each role where there is none yet, and print the account for nats-server's configuration.

    The files have mode 0600. Give the folder, or the one file a process needs, to --nats-credentials. The account has
    the passwords in it.

    \b
      inferflux topology credentials --rotate all --data-dir .inferflux    # of a running `up`: done when it returns
      inferflux topology credentials --out creds --rotate edge --accounts accounts.conf   # both logins: reload NATS
      inferflux topology credentials --out creds --finish --accounts accounts.conf        # the new one: reload NATS
    """
    from broker.credentials import accepted_logins, create_credentials, write_private
    from broker.errors import BrokerError
    from broker.rotation import finish as finish_rotation
    from broker.rotation import prepare
    from broker.server_config import render_account
    from ops.errors import Failure
    from ops.serving.broker import credentials_dir
    from ops.settings.loader import data_dir as resolve_data_dir

    if rotated and finish:
        raise click.UsageError("--finish comes after --rotate, once the servers take the new logins")
    own = resolve_data_dir(os.environ, data_dir)
    folder = Path(out).expanduser() if out else credentials_dir(own)
    try:
        logins = create_credentials(folder, tenants)
        users = _named(rotated, list(logins))
        if users and not out and _rotate_running(own, users):
            click.echo(f"exchanged: {', '.join(user.name for user in users)}")
            return
        prepare(folder, users)
        if finish:
            finish_rotation(folder, logins)
        account = render_account(accepted_logins(folder))
        if accounts is not None:
            write_private(Path(accounts).expanduser(), account)
    except (BrokerError, OSError, ValueError) as error:
        raise Failure(f"{folder}: {error}") from None
    if accounts is None:
        click.echo(account, nl=False)
    click.echo(f"# logins in {folder}", err=True)


def _named(names: tuple[str, ...], users: "list[User]") -> "list[User]":
    """The users of these names. Raises UsageError for one that there is not."""
    if ALL in names:
        return users
    known = {user.name: user for user in users}
    for name in names:
        if name not in known:
            raise click.UsageError(f"--rotate {name}: there are {', '.join([*known, ALL])}")
    return [known[name] for name in dict.fromkeys(names)]


def _rotate_running(data_dir: Path, users: "list[User]") -> bool:
    """Exchange them in the nats-server of a running `up`; False where none runs."""
    import asyncio
    import logging

    from broker.rotation import rotate_embedded
    from ops.supervisor.run_file import read_run_file

    # Old logins are tried until they open nothing, and may end while one is being tried: no news to whoever asked.
    logging.getLogger("inferflux.broker").addHandler(logging.NullHandler())
    logging.getLogger("inferflux.broker").propagate = False

    running = read_run_file(data_dir)
    if running is None or running.nats.pid is None:
        return False
    asyncio.run(rotate_embedded(running.nats.url, running.nats.pid, data_dir / "nats", users))
    return True
