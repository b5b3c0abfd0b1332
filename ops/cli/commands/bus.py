"""`inferctl bus`."""

import click

from ops.cli.program import Entry, LazyGroup

ENTRIES = {
    "env": Entry("ops.cli.commands.bus_env", "Print a context for the `nats` command line."),
    "dlq": Entry("ops.cli.commands.bus_dlq", "Requests that were given up: list, show, retry, drop."),
    "trim-audit": Entry("ops.cli.commands.bus_trim_audit", "Remove audit records that were exported."),
}


@click.group(cls=LazyGroup, entries=ENTRIES)
def command() -> None:
    """Look at the broker."""
