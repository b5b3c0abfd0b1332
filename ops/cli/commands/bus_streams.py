"""`inferctl bus streams`."""

import asyncio
from collections.abc import Mapping
from typing import Any

import click

from ops.cli.answers import print_json
from ops.cli.bus_session import bus_options

COLUMNS = ("stream", "messages", "size", "limit", "age limit", "consumers", "replicas", "leader", "subjects")


@click.command()
@bus_options
def command(bus: Mapping[str, Any], as_json: bool) -> None:
    """List streams and buckets: what is in them, and their limits.

    \b
      inferctl bus streams --data-dir .inferflux
      inferctl bus streams --nats-url nats://host:4222 --nats-credentials inspector.creds --json

    With --json a list of objects; bytes and seconds, and null for a limit that is none.
    """
    from broker.inspection import list_streams
    from broker.roles import Role
    from ops.cli.bus_session import visit
    from ops.cli.quantities import age_text, size_text
    from ops.cli.tables import print_table

    found = asyncio.run(visit(bus, Role.INSPECTOR, list_streams))
    if as_json:
        print_json({"object": "list", "data": [each._asdict() for each in found]})
        return
    rows = [
        (each.name, each.messages, size_text(each.bytes), size_text(each.max_bytes), age_text(each.max_age_s),
         each.consumers, each.replicas, each.leader, " ".join(each.subjects))
        for each in found
    ]  # fmt: skip
    print_table(COLUMNS, rows)
