"""`inferctl admin oidc`."""

import json
from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options

if TYPE_CHECKING:
    from ops.client.client import Client

_PATH = "/v1/admin/oidc"
COLUMNS = ("setting", "value", "source")
_LISTS = ("algorithms", "token_types", "login_scopes")
# An empty value takes these away.
_OPTIONAL = ("ceiling", "client_id", "resource")
_JSON = ("allow_admin", "leeway_s", "scope_map")


@click.command()
@click.option("--get", "gets", is_flag=True, help="Show what holds. Also without any option.")
@click.option("--set", "settings", metavar="NAME=VALUE", multiple=True, help="A setting; once for each.")
@client_options
def command(client: "Client", as_json: bool, gets: bool, settings: tuple[str, ...]) -> None:
    """Show or change whose tokens are taken, for all edges at once. What is not named stays as it is.

    \b
      inferctl admin oidc --set issuer=https://id.example.com --set audience=inferflux
      inferctl admin oidc --set algorithms=RS256,ES256 --set allow_admin=true
      inferctl admin oidc --set 'scope_map={"llm-users": ["generate", "read"]}'
      inferctl admin policy reset oidc

    Names are those of `auth.oidc` in the configuration. A change after which only tokens of an issuer that nobody has
    tried could administer is refused: issue a key with the scope admin first.
    """
    if gets and settings:
        raise click.UsageError("--get and --set exclude each other.")
    shown = client.put(_PATH, dict(map(_setting, settings))) if settings else client.get(_PATH)
    if as_json:
        print_json(shown)
        return
    from ops.cli.tables import print_table

    policy = shown["policy"] or {"issuer": "none: no tokens are taken"}
    print_table(COLUMNS, [(name, _text(value), shown["source"]) for name, value in policy.items()])


def _setting(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not (name and separator):
        raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE", param_hint="--set")
    if name in _LISTS:
        return name, [each.strip() for each in value.split(",") if each.strip()]
    if name in _OPTIONAL and not value:
        return name, None
    if name in _JSON:
        try:
            return name, json.loads(value)
        except ValueError:
            raise click.BadParameter(f"{name} takes JSON, such as {_example(name)}", param_hint="--set") from None
    return name, value


def _example(name: str) -> str:
    return {"allow_admin": "true", "leeway_s": "30", "scope_map": '{"llm-users": ["generate"]}'}[name]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    if isinstance(value, dict | bool):
        return json.dumps(value)
    return "" if value is None else str(value)
