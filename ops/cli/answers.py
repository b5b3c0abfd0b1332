"""Prints answers: whole or as they come, as text or as the server's JSON."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ops.client.chunks import pieces, text_of

if TYPE_CHECKING:
    from ops.client.client import Client


def print_json(body: Any) -> None:
    click.echo(json.dumps(body, ensure_ascii=False))


def print_answer(client: "Client", path: str, body: Mapping[str, Any], *, stream: bool, as_json: bool) -> None:
    """Send a generation and print its first choice; with JSON the body, or one chunk a line."""
    if not stream:
        answer = client.post(path, body)
        print_json(answer) if as_json else click.echo(text_of(answer["choices"][0]))
        return
    for chunk in client.stream(path, body):
        if as_json:
            print_json(chunk)
        else:
            click.echo("".join(pieces(chunk)), nl=False)
    if not as_json:
        click.echo()
