"""`inferctl chat`."""

import sys
from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_answer
from ops.cli.client_options import client_options, generation_options
from ops.cli.prompt_input import read_prompt

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
@click.option("--prompt", help="Short for a last --message user:TEXT; - reads it from standard input.")
@click.option("--system", help="What the model is to be; short for a first --message system:TEXT.")
@click.option("--interactive", "-i", is_flag=True, help="Hold a conversation.")
@click.option("--no-history", is_flag=True, help="With --interactive: keep what is typed for this session only.")
@generation_options
@client_options
def command(
    client: "Client",
    messages: list[dict[str, str]],
    prompt: str | None,
    system: str | None,
    interactive: bool,
    no_history: bool,
    generation: dict[str, Any],
    stream: bool,
    as_json: bool,
) -> None:
    """Ask a model, once or in a conversation.

    \b
      inferctl chat --message "user:What is the capital of France?" --stream
      inferctl chat --system "Answer in one word." --prompt "The colour of the sky?"
      git diff | inferctl chat --system "Write a commit message." --prompt -
      inferctl chat --interactive      # Ctrl-C stops an answer, Ctrl-D leaves
      inferctl chat --interactive < questions.txt

    In a conversation /help lists commands: another model, another system message, saving, loading, starting anew. A
    backslash at the end of a line goes on in the next, and so does a line that begins with three double quotes. What
    was typed is kept in `inferflux/chat_history` under the user's configuration folder, for its user alone. A
    conversation that does not come from a terminal ends with exit code 1 at the first turn that fails.

    With --json the body of /v1/chat/completions; with --stream too, its chunks, one a line.
    """
    if system is not None:
        messages = [{"role": "system", "content": system}, *messages]
    if no_history and not interactive:
        raise click.UsageError("--no-history goes with --interactive")
    if interactive:
        if as_json:
            raise click.UsageError("--interactive and --json exclude each other")
        if prompt == "-":
            raise click.UsageError("--prompt - and --interactive both read standard input")
        _converse(client, messages, prompt, generation, keeps_history=not no_history)
        return
    if prompt is not None:
        messages = [*messages, {"role": "user", "content": read_prompt(prompt)}]
    if not any(message["role"] != "system" for message in messages):
        raise click.UsageError("nothing to answer: give --message, --prompt or --interactive")
    print_answer(client, PATH, {"messages": messages, **generation}, stream=stream, as_json=as_json)


def _converse(
    client: "Client",
    opening: list[dict[str, str]],
    prompt: str | None,
    generation: dict[str, Any],
    *,
    keeps_history: bool,
) -> None:
    from ops.chat.chat import Chat, Lines
    from ops.chat.conversation import Conversation
    from ops.chat.plain_lines import PlainLines

    is_terminal = sys.stdin.isatty()
    chat = Chat(Conversation(client, opening, generation), is_lenient=is_terminal)
    lines: Lines = PlainLines(sys.stdin)
    if is_terminal:
        from prompt_toolkit.history import InMemoryHistory

        from ops.chat.history import open_history
        from ops.chat.terminal_lines import TerminalLines
        from ops.client.user_folder import user_folder

        history, problem = open_history(user_folder()) if keeps_history else (InMemoryHistory(), None)
        if problem is not None:
            click.echo(f"what is typed is not kept: {problem}", err=True)
        click.echo("/help lists the commands. Ctrl-C stops an answer, Ctrl-D leaves.", err=True)
        lines = TerminalLines(chat.commands, history)
    chat.run(lines, first=prompt)
