"""`inferctl admin autoscale`."""

from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options

if TYPE_CHECKING:
    from ops.client.client import Client

COLUMNS = (
    "model",
    "desired",
    "current",
    "reason",
    "waiting",
    "running",
    "oldest",
    "refused/min",
    "arrivals/s",
    "served/s",
)


@click.command()
@click.option("--model", metavar="ID", help="Only this one.")
@client_options
def command(client: "Client", as_json: bool, model: str | None) -> None:
    """Show how many workers each model should have, and why.

    \b
      inferctl admin autoscale
      inferctl admin autoscale --model smollm2-135m --json

    `served/s` is what one worker does. docs/operate/autoscaling.md says how the number comes about, and who acts on it.
    """
    from urllib.parse import quote

    from ops.cli.tables import print_table

    query = "" if model is None else f"?model={quote(model, safe='')}"
    hints = client.get(f"/v1/admin/autoscale{query}")
    if as_json:
        print_json(hints)
        return
    print_table(COLUMNS, [_row(hint) for hint in hints["data"]])


def _row(hint: dict[str, Any]) -> tuple[object, ...]:
    inputs = hint["inputs"]
    queue = inputs["queue"].values()
    served = inputs["served_per_s_per_worker"]
    return (
        hint["model"],
        hint["desired"],
        hint["current"],
        hint["reason"],
        sum(each["waiting"] for each in queue),
        sum(each["running"] for each in queue),
        f"{inputs['oldest_age_s']:.1f}s",
        inputs["refused_per_minute"],
        f"{inputs['arrivals_per_s']:.2f}",
        None if served is None else f"{served:.2f}",
    )
