"""`inferflux` whose minute takes as many seconds as SECONDS_OF_A_MINUTE says, for tests that cannot wait longer."""

import os
from dataclasses import replace

from ops.serving import edge
from ops.settings.settings import Settings
from producer.config import EdgeConfig

VARIABLE = "SECONDS_OF_A_MINUTE"
_edge_config = edge.edge_config


def _with_short_minutes(settings: Settings, edge_id: str) -> EdgeConfig:
    return replace(_edge_config(settings, edge_id), limit_window_s=float(os.environ[VARIABLE]))


if __name__ == "__main__":
    edge.edge_config = _with_short_minutes
    from ops.cli.inferflux import run

    run()
