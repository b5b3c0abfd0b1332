"""`inferctl chat`."""

from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_answer
from ops.cli.client_options import client_options, generation_options

if TYPE_CHECKING:
    from ops.client.client import Client

PATH = "/v1/chat/completions"
ROLES = ("system", "developer", "user", "assistant")


def _read_messages(_ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> list[dict[str, str]]:
    messages = []
    for value in values:
        role, separator, content = value.partition(":")
        if not separator or role not in ROLES:
            raise click.BadParameter(f"{value!r} is not role:text; roles are {', '.join(ROLES)}")
        messages.append({"role": role, "content": content})
    return messages


@click.command()
@click.option("--message", "messages", multiple=True, callback=_read_messages, metavar="ROLE:TEXT", help="Repeatable.")
@click.option("--prompt", help="Short for a last --message user:TEXT.")
@click.option("--system", help="What the model is to be; short for a first --message system:TEXT.")
@click.option("--interactive", "-i", is_flag=True, help="Hold a conversation.")
@generation_options
@client_options
def command(
    client: "Client",
    messages: list[dict[str, str]],
    prompt: str | None,
    system: str | None,
    interactive: bool,
    generation: dict[str, Any],
    stream: bool,
    as_json: bool,
) -> None:
    """Ask a model, once or in a conversation.

    \b
      inferctl chat --message "user:What is the capital of France?" --stream
      inferctl chat --system "Answer in one word." --prompt "The colour of the sky?"
      inferctl chat --interactive      # Ctrl-C stops an answer, Ctrl-D leaves
    """
    if system is not None:
        messages = [{"role": "system", "content": system}, *messages]
    if prompt is not None:
        messages = [*messages, {"role": "user", "content": prompt}]
    if interactive:
        if as_json:
            raise click.UsageError("--interactive and --json exclude each other")
        from ops.client.conversation import Conversation

        Conversation(client, PATH, messages, generation).run()
        return
    if not any(message["role"] != "system" for message in messages):
        raise click.UsageError("nothing to answer: give --message, --prompt or --interactive")
    print_answer(client, PATH, {"messages": messages, **generation}, stream=stream, as_json=as_json)
