"""Prints answers: whole or as they come, as text or as the server's JSON."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ops.cli.terminal_text import shown
from ops.client.chunks import pieces, text_of

if TYPE_CHECKING:
    from ops.client.client import Client


def print_json(body: Any) -> None:
    click.echo(json.dumps(body, ensure_ascii=False))


def print_answer(client: "Client", path: str, body: Mapping[str, Any], *, stream: bool, as_json: bool) -> None:
    """Send a generation and print its first choice; with JSON the body, or one chunk a line."""
    from ops.cli.progress import Progress

    with Progress("waiting for the model") as progress:
        if not stream:
            answer = client.post(path, body)
            progress.stop()
            print_json(answer) if as_json else click.echo(shown(text_of(answer["choices"][0])))
            return
        for chunk in client.generation(progress.comment).chunks(path, body):
            if as_json:
                progress.stop()
                print_json(chunk)
            elif text := "".join(pieces(chunk)):
                progress.stop()
                click.echo(shown(text), nl=False)
        progress.stop()
        if not as_json:
            click.echo()
