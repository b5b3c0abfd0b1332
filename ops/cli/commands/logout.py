"""`inferctl logout`."""

from pathlib import Path

import click

from ops.cli.client_options import address_options


@click.command()
@address_options
def command(host: str, port: int | None, **_: Path | None) -> None:
    """Forget the token of `inferctl login`, and tell the issuer that it is not needed any more."""
    from ops.client.login.credentials import server_name, user_credentials
    from ops.client.login.issuer import NoAnswer, post

    server, credentials = server_name(host, port), user_credentials()
    with credentials.changing():
        login = credentials.get(server)
        credentials.put(server, None)
    if login is None:
        click.echo(f"Not logged in to {server}.")
        return
    if login.revocation_endpoint is not None:
        fields = {"token": login.refresh_token or login.access_token, "client_id": login.client_id}
        try:
            post(login.revocation_endpoint, fields)
        except NoAnswer as error:
            click.echo(f"warning: the issuer was not told: {error}", err=True)
    click.echo(f"Logged out of {server}.")
