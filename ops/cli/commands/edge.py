"""`inferflux edge`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ops.cli.child_process import child_options, tell_ready
from ops.cli.options import given_flags, setting_options
from ops.settings import table

if TYPE_CHECKING:
    from producer.edge.serve import EdgeAddress


@click.command()
@setting_options(table.CONFIG, table.HOST, table.HTTP_PORT, table.DATA_DIR, table.NATS_URL, table.NATS_CREDENTIALS)
@click.option("--id", "edge_id", metavar="ID", help="Name of this edge. [default: a fresh one]")
@child_options
def command(edge_id: str | None, ready_file: Path | None, **params: Any) -> int:
    """Run one edge: the OpenAI-compatible HTTP server, against a broker.

    \b
      inferflux edge --data-dir .inferflux --port 8081     # beside a running `up`
      inferflux edge --nats-url nats://host:4222 --nats-credentials edge.creds --host 0.0.0.0

    Edges keep no state: run as many as you like behind any balancer. SIGTERM lets running answers finish,
    SIGHUP reads the configuration again.
    """
    from broker.errors import BrokerError
    from broker.roles import Role
    from ops.cli.loop import run
    from ops.errors import CannotStart
    from ops.logs import configure
    from ops.manifest.follower import manifest_beside
    from ops.reload.edge import CONCERNS, reloading_of
    from ops.reload.sources import SettingsSources
    from ops.serving.broker import broker_config
    from ops.serving.edge import edge_config
    from ops.serving.ids import process_id
    from ops.serving.open_files import raise_open_files
    from ops.telemetry.tracing import open_tracer, require_packages
    from producer.edge.listening import PortTaken
    from producer.edge.serve import run_edge
    from producer.edge.tls import TlsUnusable
    from producer.policy.errors import PolicyError

    sources = SettingsSources(given_flags(params), *CONCERNS)
    settings = sources.settings
    own_id = process_id("edge", edge_id)
    configure(level=settings.logging.level, form=settings.logging.format, process=own_id)
    require_packages(settings.tracing)
    broker = broker_config(settings, Role.EDGE, f"inferflux-{own_id}")
    config = edge_config(settings, own_id)

    def on_ready(address: "EdgeAddress") -> None:
        facts = {"id": own_id, "pid": os.getpid(), "url": address.url, "metrics": address.metrics_url}
        facts["default_key"] = address.takes_default_key
        tell_ready(ready_file, facts)

    raise_open_files()
    try:
        with open_tracer(settings.tracing, own_id) as tracer:
            run(
                run_edge(
                    config,
                    broker,
                    on_ready=on_ready,
                    reloading=reloading_of(sources, own_id),
                    beside=[manifest_beside(settings.registry)],
                    tracer=tracer,
                )
            )
    except (BrokerError, PolicyError, PortTaken, TlsUnusable, OSError) as error:
        raise CannotStart(str(error)) from None
    return 0
