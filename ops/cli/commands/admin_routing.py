"""`inferctl admin routing`."""

from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options

if TYPE_CHECKING:
    from ops.client.client import Client

_PATH = "/v1/admin/routing"
COLUMNS = ("name", "model", "source")


@click.command()
@click.option("--get", "gets", is_flag=True, help="Show what holds. Also without any option.")
@click.option("--default", "default_model", metavar="ID", help="The model of calls that name none.")
@click.option("--no-default", is_flag=True, help="The default is what the models' own settings say.")
@click.option("--alias", "aliases", metavar="NAME=ID", multiple=True, help="A further name of a model; once for each.")
@click.option("--remove", "removed", metavar="NAME", multiple=True, help="Take such a name away; once for each.")
@client_options
def command(
    client: "Client",
    as_json: bool,
    gets: bool,
    default_model: str | None,
    no_default: bool,
    aliases: tuple[str, ...],
    removed: tuple[str, ...],
) -> None:
    """Show or change what names of models stand for, for all edges at once.

    \b
      inferctl admin routing --default smollm2-135m
      inferctl admin routing --alias gpt-4o-mini=smollm2-135m
      inferctl admin routing --remove gpt-4o-mini

    These come before the aliases of the models themselves. `admin policy reset routing` ends all of them.
    """
    change: dict[str, Any] = {}
    if default_model is not None and no_default:
        raise click.UsageError("--default and --no-default exclude each other.")
    if default_model is not None or no_default:
        change["default_model"] = default_model
    if aliases or removed:
        change["aliases"] = {**dict(map(_pair, aliases)), **dict.fromkeys(removed)}
    if gets and change:
        raise click.UsageError("--get and changes exclude each other.")
    routing = client.put(_PATH, change) if change else client.get(_PATH)
    if as_json:
        print_json(routing)
        return
    from ops.cli.tables import print_table

    names = {"default": routing["default_model"], **routing["aliases"]}
    print_table(COLUMNS, [(name, model or "as the models say", routing["source"]) for name, model in names.items()])


def _pair(text: str) -> tuple[str, str]:
    name, separator, model = text.partition("=")
    if not (name and separator and model):
        raise click.BadParameter(f"{text!r} is not of the form NAME=ID", param_hint="--alias")
    return name, model
