"""`inferctl admin rate-limit`."""

from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options

if TYPE_CHECKING:
    from ops.client.client import Client

_PATH = "/v1/admin/rate_limit"
FIELDS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests", "tokens_per_day")
COLUMNS = ("for", "name", *FIELDS)
USE_COLUMNS = ("for", "name", "limit", "allowed", "used")
_COUNT = click.IntRange(min=0)


@click.command()
@click.option("--get", "is_get", is_flag=True, help="Show the limits; also what happens without options.")
@click.option("--use", "is_use", is_flag=True, help="Show what is used of each limit now.")
@click.option(
    "--set", "requests_per_minute", type=_COUNT, metavar="N", help="Requests in any 60 seconds; 0 for no limit."
)
@click.option("--tokens", "tokens_per_minute", type=_COUNT, metavar="N", help="Tokens in any 60 seconds.")
@click.option("--concurrent", "concurrent_requests", type=_COUNT, metavar="N", help="Requests at a time.")
@click.option("--tokens-per-day", type=_COUNT, metavar="N", help="Tokens in a day of UTC.")
@click.option(
    "--tenant", metavar="NAME", help="The limits of a tenant, over all its keys, instead of those of each key."
)
@click.option("--model", metavar="ID", help="The limits of a model, over all that use it.")
@click.option("--clear", "is_clear", is_flag=True, help="Take away all limits of the tenant, the model, or each key.")
@client_options
def command(
    client: "Client",
    as_json: bool,
    is_get: bool,
    is_use: bool,
    tenant: str | None,
    model: str | None,
    is_clear: bool,
    **numbers: int | None,
) -> None:
    """Show or change what each key, a tenant or a model may use over all edges.

    \b
      inferctl admin rate-limit --get
      inferctl admin rate-limit --set 60 --tokens 100000
      inferctl admin rate-limit --tenant blue --concurrent 8

    Limits that are not named stay as they are; those of a tenant or a model are set together. Keys that have limits of
    their own do not have these.
    """
    given = {name: number for name, number in numbers.items() if number is not None}
    changes = bool(given) or is_clear
    if tenant is not None and model is not None:
        raise click.UsageError("give --tenant or --model, not both")
    if ((is_get or is_use) and (changes or tenant or model)) or (is_get and is_use):
        raise click.UsageError("--get and --use stand alone")
    if is_clear and given:
        raise click.UsageError("--clear stands for all limits: give no numbers with it")
    if (tenant or model) and not changes:
        raise click.UsageError("say which limits: --set, --tokens, --concurrent, --tokens-per-day, or --clear")
    if is_use:
        _show_use(client.get(f"{_PATH}/use"), as_json)
        return
    limits = client.put(_PATH, _body(tenant, model, given, is_clear)) if changes else client.get(_PATH)
    _show(limits, as_json)


def _body(tenant: str | None, model: str | None, given: dict[str, int], is_clear: bool) -> dict[str, Any]:
    if tenant is not None:
        return {"tenants": {tenant: None if is_clear else given}}
    if model is not None:
        return {"models": {model: None if is_clear else given}}
    return dict.fromkeys(FIELDS, 0) if is_clear else given


def _show(limits: dict[str, Any], as_json: bool) -> None:
    from ops.cli.tables import print_table

    if as_json:
        print_json(limits)
        return
    rows = [("each key", "", *(_cell(limits[field]) for field in FIELDS))]
    for kind in ("tenant", "model"):
        for name, own in sorted(limits[f"{kind}s"].items()):
            rows.append((kind, name, *(_cell(own[field]) for field in FIELDS)))
    print_table(COLUMNS, rows)


def _cell(limit: int) -> str:
    return str(limit) if limit else "-"


def _show_use(uses: dict[str, Any], as_json: bool) -> None:
    from ops.cli.tables import print_table

    if as_json:
        print_json(uses)
        return
    rows = [(use["who"], use["name"], use["limit_name"], use["limit"], use["used"]) for use in uses["data"]]
    print_table(USE_COLUMNS, rows)
