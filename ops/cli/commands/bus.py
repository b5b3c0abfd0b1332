"""`inferctl bus`."""

import click

from ops.cli.program import Entry, LazyGroup

ENTRIES = {
    "env": Entry("ops.cli.commands.bus_env", "Print a context for the `nats` command line."),
    "streams": Entry("ops.cli.commands.bus_streams", "Streams and buckets, and what is in them."),
    "consumers": Entry("ops.cli.commands.bus_consumers", "Queues: what waits, and what is in hand."),
    "peek": Entry("ops.cli.commands.bus_peek", "Messages: requests, journals, the registry."),
    "watch": Entry("ops.cli.commands.bus_watch", "Each step of requests, as it happens."),
    "dlq": Entry("ops.cli.commands.bus_dlq", "Requests that were given up: list, show, retry, drop."),
    "trim-audit": Entry("ops.cli.commands.bus_trim_audit", "Remove audit records that were exported."),
}


@click.group(cls=LazyGroup, entries=ENTRIES)
def command() -> None:
    """Look at the broker, without the `nats` command line.

    \b
      inferctl bus streams --data-dir .inferflux
      inferctl bus consumers requests
      inferctl bus peek requests --last 3
      inferctl bus watch

    It is found through the data directory of a running `up`, or by --nats-url and --nats-credentials.
    """
