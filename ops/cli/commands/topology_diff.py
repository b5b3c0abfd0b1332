"""`inferflux topology diff`."""

import asyncio
from typing import Any

import click

from ops.cli.options import setting_options
from ops.settings import table


@click.command()
@setting_options(table.CONFIG, table.DATA_DIR, table.NATS_URL, table.NATS_CREDENTIALS, table.MODEL_PATH)
def command(**params: Any) -> int:
    """Say what `apply` would change, and change nothing. Exit code 1 when there is something."""
    from ops.cli.broker_session import visit_broker
    from ops.serving.topology import difference

    changes = asyncio.run(visit_broker(params, difference))
    for change in changes:
        click.echo(change)
    return 1 if changes else 0
