"""`inferctl admin queues`."""

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options

if TYPE_CHECKING:
    from ops.client.client import Client

_PATH = "/v1/admin/queues"
FIELDS = ("priority", "waiting", "in_hand", "oldest_age_s", "waiting_prompt_tokens", "asking")
COLUMNS = ("model", "workers", "queue_max", "dead letters", *FIELDS)


@click.command()
@click.option("--list", "lists", is_flag=True, help="Show them. Also without any option.")
@click.option("--model", metavar="ID", help="Of this model.")
@client_options
def command(client: "Client", as_json: bool, lists: bool, model: str | None) -> None:
    """Show what waits and runs of each model and class."""
    body = client.get(f"{_PATH}?{urlencode({'model': model})}" if model is not None else _PATH)
    if as_json:
        print_json(body)
        return
    from ops.cli.tables import print_table

    rows = []
    for queue in body["data"]:
        facts = [queue["model"], queue["workers"], queue["queue_max"], queue["dead_letters"]]
        for number, each in enumerate(queue["classes"]):
            rows.append([*(facts if number == 0 else [None] * len(facts)), *(each[name] for name in FIELDS)])
    print_table(COLUMNS, rows)
