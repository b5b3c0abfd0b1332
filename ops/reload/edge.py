"""What an edge needs to read its configuration again."""

import logging
from collections.abc import Callable

from ops.errors import CommandError
from ops.logs import set_level
from ops.reload.follow import follow_config
from ops.reload.sources import SettingsSources
from ops.serving.edge import edge_config
from ops.settings.errors import SettingsError
from producer.edge.reload import ConfigUnusable, Reloading, Reread

CONCERNS = ("server.", "nats.", "policy.", "registry.", "metrics.", "logging.", "audit.", "runtime.fairness.high_")
log = logging.getLogger("inferflux.edge")


def reloading_of(sources: SettingsSources, edge_id: str) -> Reloading:
    def read() -> Reread:
        try:
            again = sources.read()
            config = edge_config(again.settings, edge_id)
        except (SettingsError, CommandError, OSError) as error:
            raise ConfigUnusable(str(error)) from None
        return Reread(config, again.needs_restart, lambda: set_level(again.settings.logging.level))

    async def follow(ask: Callable[[], None]) -> None:
        await follow_config(sources, ask)

    return Reloading(read, follow)
