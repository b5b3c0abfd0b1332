"""`inferctl admin api-keys issue`."""

from typing import TYPE_CHECKING, Any

import click

from ops.cli.client_options import client_options
from ops.cli.key_options import Duration, print_new_key, rights, rights_options

if TYPE_CHECKING:
    from ops.client.client import Client


@click.command()
@click.argument("name")
@rights_options
@click.option("--tenant", help="[default: default]")
@click.option("--expires-in", type=Duration(), help="Such as 12h or 90d. [default: never]")
@client_options
def command(
    client: "Client", as_json: bool, name: str, tenant: str | None, expires_in: int | None, **given: Any
) -> None:
    """Issue a key and print it. It is shown this once; only a hash of it is kept.

    \b
      inferctl admin api-keys issue app --scope generate --scope read --limit requests_per_minute=60

    Without --scope it opens generate and read. The first key of a fresh installation needs the scope admin: the
    well-known key ends with it.
    """
    body: dict[str, Any] = {"name": name, **rights(**given)}
    if tenant is not None:
        body["tenant"] = tenant
    if expires_in is not None:
        body["expires_in_s"] = expires_in
    print_new_key(client.post("/v1/admin/api_keys", body), as_json)
