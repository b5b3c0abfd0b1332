"""`inferctl admin policy`."""

import click

from ops.cli.program import Entry, LazyGroup

_COMMANDS = "ops.cli.commands"
ENTRIES = {
    "show": Entry(f"{_COMMANDS}.admin_policy_show", "What is allowed, and where each rule comes from."),
}


@click.group(cls=LazyGroup, entries=ENTRIES)
def command() -> None:
    """The stored policy: what administrators decided, over the rules of the configuration file.

    \b
      inferctl admin policy show
    """
