"""`inferctl admin`."""

import click

from ops.cli.program import Entry, LazyGroup

_COMMANDS = "ops.cli.commands"
ENTRIES = {
    "policy": Entry(f"{_COMMANDS}.admin_policy", "What is allowed: show, versions, roll back, reset, export, import."),
    "audit": Entry(f"{_COMMANDS}.admin_audit", "Who did what: list, verify, export."),
}


@click.group(cls=LazyGroup, entries=ENTRIES)
def command() -> None:
    """Administer a running InferFlux, with a key of the scope admin.

    \b
      inferctl admin policy show
      inferctl admin audit list

    What is changed here holds for all edges at once, and over restarts.
    """
