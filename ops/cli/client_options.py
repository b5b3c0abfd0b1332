"""Options that all commands of `inferctl` share: where the server is, and the key."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.cli.model_completion import complete_model

if TYPE_CHECKING:
    from ops.client.client import Client

DEFAULT_HOST = "localhost"


def address_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --host, --port, --ca-file and --client-cert."""
    host = click.option(
        "--host", envvar="INFERCTL_HOST", default=DEFAULT_HOST, show_default=True, show_envvar=True,
        help="A name, or an address such as https://name[:port].",
    )  # fmt: skip
    port = click.option(
        "--port", envvar="INFERCTL_PORT", type=click.IntRange(1, 65535), show_envvar=True,
        help="[default: 8080; of an address, its scheme's]",
    )  # fmt: skip
    ca_file = click.option(
        "--ca-file", envvar="INFERCTL_CA_FILE", type=click.Path(path_type=Path), show_envvar=True,
        help="Who signed the server's certificate (PEM). [default: the system's authorities]",
    )  # fmt: skip
    client_cert = click.option(
        "--client-cert", envvar="INFERCTL_CLIENT_CERT", type=click.Path(path_type=Path), show_envvar=True,
        help="Certificate and key (PEM) for a server that asks for one.",
    )  # fmt: skip
    return host(port(ca_file(client_cert(function))))


def client_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add those of the address, --api-key and --json; the function gets `client` and `as_json`."""

    @address_options
    @click.option(
        "--api-key", envvar="INFERCTL_API_KEY", help="[default: the login's token, or dev-key-123 on loopback]",
        show_envvar=True,
    )  # fmt: skip
    @click.option("--json", "as_json", is_flag=True, help="Print the server's JSON.")
    @functools.wraps(function)
    def with_client(
        host: str,
        port: int | None,
        ca_file: Path | None,
        client_cert: Path | None,
        api_key: str | None,
        **params: Any,
    ) -> Any:
        with open_client(host, port, api_key, ca_file, client_cert) as client:
            return function(client=client, **params)

    return with_client


def generation_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a generation; the function gets them as `generation`, ready for a request's body."""

    @click.option("--model", metavar="ID", shell_complete=complete_model, help="[default: the server's]")
    @click.option("--max-tokens", type=click.IntRange(1), default=256, show_default=True)
    @click.option("--temperature", type=click.FloatRange(0, 2))
    @click.option("--seed", type=int)
    @click.option("--stream", is_flag=True, help="Print tokens as they come.")
    @functools.wraps(function)
    def with_generation(
        model: str | None, max_tokens: int, temperature: float | None, seed: int | None, **params: Any
    ) -> Any:
        fields = {"model": model, "max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        return function(generation={name: value for name, value in fields.items() if value is not None}, **params)

    return with_generation


def open_client(
    host: str, port: int | None, api_key: str | None, ca_file: Path | None = None, client_cert: Path | None = None
) -> "Client":
    from ops.client.address import client_tls
    from ops.client.client import Client
    from ops.client.login.credentials import server_name, user_credentials

    tls = client_tls(ca_file, client_cert)
    if api_key:
        return Client(host, port, api_key, tls)
    credentials, server = user_credentials(), server_name(host, port)
    if credentials.get(server) is None:
        return Client(host, port, None, tls)
    from ops.client.login.stored_token import StoredToken

    return Client(host, port, None, tls, StoredToken(credentials, server))
