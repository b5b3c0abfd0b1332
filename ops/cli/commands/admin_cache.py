"""`inferctl admin cache`."""

import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options

if TYPE_CHECKING:
    from ops.client.client import Client

_PATH = "/v1/admin/cache"
STATES = ("used", "reserved", "cached", "free")
COLUMNS = ("worker", "model", "cache", *STATES, "page", "entries", "hits", "misses", "matched", "evictions")
CLEARED = ("worker", "model", "entries", "tokens")
WARMED = ("worker", "prompt", "computed", "cached", "error")


@click.command()
@click.option("--status", "shows", is_flag=True, help="Show what is cached. Also without any option.")
@click.option("--clear", is_flag=True, help="Drop what is not in use.")
@click.option("--warm", "text", metavar="TEXT", help="Compute the beginning of later prompts; - reads it from stdin.")
@click.option("--chat", is_flag=True, help="With --warm: the text is the system message of later chats.")
@click.option("--model", metavar="ID", help="Of this model. [default: of all; with --warm: of the default one]")
@click.option("--worker", metavar="ID", help="On this worker alone; not with --warm.")
@click.option("--tenant", metavar="NAME", help="With --warm: whose requests are to find it, where caches are apart.")
@client_options
def command(
    client: "Client", as_json: bool, shows: bool, clear: bool, text: str | None, chat: bool, **where: str | None
) -> None:
    """Show, drop or fill the KV that workers keep of earlier prompts.

    \b
      inferctl admin cache --status
      inferctl admin cache --clear --model smollm2-135m
      inferctl admin cache --warm - --chat < system-prompt.txt

    Pages in use are among the reserved ones, and are never dropped.
    """
    if shows + clear + (text is not None) > 1:
        raise click.UsageError("--status, --clear and --warm exclude each other.")
    if text is None and (chat or where["tenant"] is not None):
        raise click.UsageError("--chat and --tenant go with --warm.")
    if text is not None and where["worker"] is not None:
        raise click.UsageError("--warm fills the caches of all workers of a model; --worker does not go with it.")
    given = {name: value for name, value in where.items() if value is not None}
    if text is not None:
        answer = client.post(f"{_PATH}/warm", {**given, **_prompt(text, chat)})
    elif clear:
        answer = client.post(f"{_PATH}/clear", given)
    else:
        answer = client.get(f"{_PATH}?{urlencode(given)}" if given else _PATH)
    print_json(answer) if as_json else _print(answer)


def _prompt(text: str, chat: bool) -> dict[str, Any]:
    prompt = sys.stdin.read() if text == "-" else text
    return {"messages": [{"role": "system", "content": prompt}]} if chat else {"text": prompt}


def _print(answer: dict[str, Any]) -> None:
    from ops.cli.tables import print_table

    data = answer["data"]
    match answer["object"]:
        case "cache.cleared":
            print_table(CLEARED, [[each[name] for name in CLEARED] for each in data])
            click.echo(f"{answer['tokens']} tokens freed")
        case "cache.warmed":
            names = ("worker", "prompt_tokens", "computed_tokens", "cached_tokens", "error")
            print_table(WARMED, [[each[name] for name in names] for each in data])
        case _:
            print_table(COLUMNS, [_row(each) for each in data])
    for worker in answer.get("unanswered", ()):
        click.echo(f"{worker} does not answer", err=True)


def _row(cache: dict[str, Any]) -> list[object]:
    state = cache["scope"] if cache["enabled"] else "off"
    pages = [cache["pages"][name] for name in STATES]
    counts = [cache[name] for name in ("page_size", "entries", "hits", "misses", "matched_tokens", "evictions")]
    return [cache["worker"], cache["model"], state, *pages, *counts]
