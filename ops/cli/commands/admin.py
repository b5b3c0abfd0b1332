"""`inferctl admin`."""

import click

from ops.cli.program import Entry, LazyGroup

_COMMANDS = "ops.cli.commands"
ENTRIES = {
    "audit": Entry(f"{_COMMANDS}.admin_audit", "Who did what."),
}


@click.group(cls=LazyGroup, entries=ENTRIES)
def command() -> None:
    """Administer a running InferFlux. Needs a key with the scope admin.

    \b
      inferctl admin audit list
    """
