"""`inferflux topology`."""

import click

from ops.cli.program import Entry, LazyGroup

_COMMANDS = "ops.cli.commands"
ENTRIES = {
    "apply": Entry(f"{_COMMANDS}.topology_apply", "Make the broker as the settings want it."),
    "diff": Entry(f"{_COMMANDS}.topology_diff", "Say what apply would change."),
    "credentials": Entry(f"{_COMMANDS}.topology_credentials", "Make the logins of all roles."),
}


@click.group(cls=LazyGroup, entries=ENTRIES)
def command() -> None:
    """Streams, consumers, buckets and logins of an external NATS. (`up` sees to its own.)

    \b
      inferflux topology credentials --out creds > inferflux.conf   # include it in nats-server's configuration
      inferflux topology apply --nats-url nats://host:4222 --nats-credentials creds --config server.yaml
      inferflux edge --nats-url nats://host:4222 --nats-credentials creds
    """
