"""`inferctl login`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ops.cli.client_options import address_options

if TYPE_CHECKING:
    from ops.client.login.device_flow import Prompt

SCOPES = ("openid", "offline_access")


@click.command()
@address_options
@click.option("--issuer", metavar="URL", help="OpenID Connect issuer. [default: the one the server trusts]")
@click.option(
    "--client-id", metavar="ID", help="Public client to log in as. [default: the server's auth.oidc.client_id]"
)
@click.option("--audience", metavar="NAME", help="What the token is for. [default: the server's auth.oidc.audience]")
@click.option("--scope", "scopes", multiple=True, metavar="NAME", help="Repeatable. [default: those the server names]")
def command(
    host: str,
    port: int | None,
    ca_file: Path | None,
    client_cert: Path | None,
    issuer: str | None,
    client_id: str | None,
    audience: str | None,
    scopes: tuple[str, ...],
) -> None:
    """Log in at the issuer that the server trusts, with a browser on any device.

    \b
      inferctl login
      inferctl login --host https://llm.example
      inferctl login --issuer https://login.example/realms/a --client-id inferctl

    All commands use the token then, unless they get a key, and renew it where the issuer lets them.
    """
    from ops.client.address import client_tls
    from ops.client.client import Client
    from ops.client.login.credentials import server_name, user_credentials
    from ops.client.login.device_flow import log_in
    from ops.client.login.issuer import discover
    from ops.client.login.server import read_wanted
    from ops.errors import Failure

    tls = client_tls(ca_file, client_cert)
    if issuer is None or client_id is None:
        with Client(host, port, None, tls) as client:
            wanted = read_wanted(client)
        if issuer is None or issuer == wanted.issuer:
            issuer, client_id = wanted.issuer, client_id or wanted.client_id
            audience, scopes = audience or wanted.audience, scopes or wanted.scopes
    if client_id is None:
        raise Failure("the server names no client to log in as (auth.oidc.client_id): name one with --client-id")
    asked = {"scope": " ".join(scopes or SCOPES)}
    if audience is not None:
        asked["audience"] = audience
        if audience.startswith(("https://", "http://")):
            asked["resource"] = audience  # RFC 8707, for which it must be an address
    login = log_in(discover(issuer), client_id, asked, _show)
    with Client(host, port, login.access_token, tls) as client:
        _require_taken(client.probe("/v1/models").status_code, client.base_url)
    credentials = user_credentials()
    with credentials.changing():
        credentials.put(server_name(host, port), login)
    click.echo(f"Logged in to {client.base_url}.")


def _show(prompt: "Prompt") -> None:
    click.echo(f"Open {prompt.whole_url or prompt.url}\nand confirm the code {prompt.code} there. Ctrl-C gives up.")


def _require_taken(status: int, base_url: str) -> None:
    from ops.errors import Failure

    if status == 401:
        raise Failure(f"the issuer gave a token that {base_url} does not take: see auth.oidc and --audience")
