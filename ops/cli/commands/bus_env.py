"""`inferctl bus env`."""

import os
from pathlib import Path

import click

from ops.cli.answers import print_json

ROLES = ("inspector", "inspector-full", "topology")


@click.command()
@click.option(
    "--data-dir", metavar="PATH", help="Where `up` keeps its state. [default: ~/.inferflux; INFERFLUX_DATA_DIR]"
)
@click.option("--role", type=click.Choice(ROLES), default="inspector", show_default=True, help="Whose login.")
@click.option("--json", "_as_json", is_flag=True, help="Which it is anyway: a context is JSON.")
def command(data_dir: str | None, role: str, _as_json: bool) -> None:
    """Print a context for the `nats` command line, login included.

    \b
      inferctl bus env --data-dir .inferflux > ~/.config/nats/context/inferflux.json
      nats --context inferflux stream ls
      nats --context inferflux sub 'inferflux.evt.>'

    `inspector` sees streams, consumers and transitions; `inspector-full` also prompts and answers.
    """
    from broker.credentials import find_login
    from broker.errors import BrokerError
    from broker.roles import Role, inbox_prefix
    from ops.errors import Failure
    from ops.serving.broker import credentials_dir
    from ops.settings.loader import data_dir as resolve_data_dir
    from ops.supervisor.run_file import read_run_file

    folder = resolve_data_dir(os.environ, data_dir)
    running = read_run_file(folder)
    if running is None:
        raise Failure(f"nothing runs in {folder}; start with make up, or name its --data-dir")
    try:
        login = find_login(credentials_dir(folder), Role(role))
    except BrokerError as error:
        raise Failure(str(error)) from None
    context = {
        "description": f"InferFlux, role {role}",
        "url": running.nats.url,
        "inbox_prefix": inbox_prefix(Role(role)),
    }
    if isinstance(login, Path):
        context["creds"] = str(login)
    else:
        context["user"], context["password"] = login
    print_json(context)
