"""`inferflux up`."""

import asyncio
from typing import Any

import click

from ops.cli.options import given_flags, setting_options
from ops.settings import table


@click.command()
@setting_options(
    table.CONFIG,
    table.HOST,
    table.HTTP_PORT,
    table.NATS_URL,
    table.NATS_PORT,
    table.NATS_CREDENTIALS,
    table.DATA_DIR,
    table.WORKERS,
    table.NO_EDGE,
    table.BACKEND,
    table.MODEL_PATH,
    table.MEMORY_BYTES,
)
def command(**params: Any) -> int:
    """Run broker, edge and workers on this machine until Ctrl-C.

    \b
      inferflux up                          # the packaged model, or echo
      inferflux up --model ./model.gguf
      inferflux up --config server.yaml --workers 2

    Ctrl-C drains: running answers are finished or kept for the next start. A second one forces.
    SIGHUP reads the configuration again.
    """
    from ops.logs import configure
    from ops.reload.plain import UP_CONCERNS
    from ops.reload.sources import SettingsSources
    from ops.serving.keys import require_keys
    from ops.serving.plan import plan_models
    from ops.supervisor.up import Up
    from ops.telemetry.tracing import require_packages

    flags = given_flags(params)
    sources = SettingsSources(flags, *UP_CONCERNS)
    settings = sources.settings
    configure(level=settings.logging.level, form=settings.logging.format, process="up")
    require_packages(settings.tracing)
    if not settings.no_edge:
        require_keys(settings)  # refuses before anything is started
    plan = plan_models(settings)

    async def run() -> int:
        return await Up(sources, plan, flags).run()

    return asyncio.run(run())
