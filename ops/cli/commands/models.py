"""`inferctl models`."""

from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options
from ops.cli.tables import print_table

if TYPE_CHECKING:
    from ops.client.client import Client


COLUMNS = ("model", "default", "state", "backend", "why", "slots", "context", "aliases")


@click.command()
@client_options
def command(client: "Client", as_json: bool) -> None:
    """List the models: whether a worker serves them, on which backend and why, with how many slots and which context.

    \b
      inferctl models
      inferctl models --host https://llm.example --json

    With --json the body of /v1/models.
    """
    body = client.get("/v1/models")
    if as_json:
        print_json(body)
    else:
        print_models(body["data"])


def print_models(models: list[dict[str, Any]]) -> None:
    """A table of the model objects of `/v1/models`."""
    print_table(COLUMNS, [_row(model) for model in models])


def _row(model: dict[str, Any]) -> tuple[object, ...]:
    backends = model.get("backends") or []
    return (
        model["id"],
        "yes" if model.get("default") else "",
        "ready" if model.get("ready") else "no worker",
        ", ".join(sorted({entry["backend"] for entry in backends})),
        "; ".join(sorted({entry["reason"] for entry in backends})),
        sum(entry["slots"] for entry in backends),
        model.get("max_model_len"),
        ", ".join(model.get("aliases") or ()),
    )
