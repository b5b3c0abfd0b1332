"""`inferctl models`."""

from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options
from ops.cli.tables import print_table

if TYPE_CHECKING:
    from ops.client.client import Client


@click.command()
@client_options
def command(client: "Client", as_json: bool) -> None:
    """List the models."""
    body = client.get("/v1/models")
    if as_json:
        print_json(body)
    else:
        print_models(body["data"])


def print_models(models: list[dict[str, Any]]) -> None:
    """A table of the model objects of `/v1/models`."""
    print_table(("model", "state", "backend", "slots", "context", "aliases"), [_row(model) for model in models])


def _row(model: dict[str, Any]) -> tuple[object, ...]:
    backends = model.get("backends") or []
    name = f"{model['id']} (default)" if model.get("default") else model["id"]
    return (
        name,
        "ready" if model.get("ready") else "no worker",
        ", ".join(sorted({entry["backend"] for entry in backends})),
        sum(entry["slots"] for entry in backends),
        model.get("max_model_len"),
        ", ".join(model.get("aliases") or ()),
    )
