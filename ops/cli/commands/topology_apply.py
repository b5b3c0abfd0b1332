"""`inferflux topology apply`."""

import asyncio
from typing import Any

import click

from ops.cli.options import setting_options
from ops.settings import table


@click.command()
@setting_options(table.CONFIG, table.DATA_DIR, table.NATS_URL, table.NATS_CREDENTIALS, table.MODEL_PATH)
def command(**params: Any) -> None:
    """Create and update streams, consumers and buckets, and register the configured models. Safe to repeat."""
    from ops.cli.broker_session import visit_broker
    from ops.serving.topology import register

    async def visit(*parts: Any) -> Any:
        return await register(*parts, is_ours_alone=False)

    changes = asyncio.run(visit_broker(params, visit))
    for change in changes:
        click.echo(change)
    click.echo(f"{len(changes)} changes")
