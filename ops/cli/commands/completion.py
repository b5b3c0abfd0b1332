"""`inferctl completion`."""

from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_answer
from ops.cli.client_options import client_options, generation_options

if TYPE_CHECKING:
    from ops.client.client import Client

PATH = "/v1/completions"


@click.command()
@click.option("--prompt", required=True, help="The text to go on from.")
@generation_options
@client_options
def command(client: "Client", prompt: str, generation: dict[str, Any], stream: bool, as_json: bool) -> None:
    """Complete a text.

    \b
      inferctl completion --prompt "Once upon a time" --stream
      inferctl completion --prompt "2, 3, 5, 7," --temperature 0 --max-tokens 16 --json
    """
    print_answer(client, PATH, {"prompt": prompt, **generation}, stream=stream, as_json=as_json)
