"""`inferctl completion`."""

from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_answer
from ops.cli.client_options import client_options, generation_options
from ops.cli.prompt_input import read_prompt

if TYPE_CHECKING:
    from ops.client.client import Client

PATH = "/v1/completions"


@click.command()
@click.option("--prompt", required=True, help="The text to go on from; - reads it from standard input.")
@generation_options
@client_options
def command(client: "Client", prompt: str, generation: dict[str, Any], stream: bool, as_json: bool) -> None:
    """Complete a text. (Completion of command lines by Tab: `inferctl completion-script`.)

    \b
      inferctl completion --prompt "Once upon a time" --stream
      inferctl completion --prompt "2, 3, 5, 7," --temperature 0 --max-tokens 16 --json
      inferctl completion --prompt - < beginning.txt

    With --json the body of /v1/completions; with --stream too, its chunks, one a line.
    """
    print_answer(client, PATH, {"prompt": read_prompt(prompt), **generation}, stream=stream, as_json=as_json)
