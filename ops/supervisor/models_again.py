"""The models of a configuration that has changed, registered by `up`."""

import asyncio
import logging
from collections.abc import Sequence

from broker.errors import BrokerError
from ops.errors import CannotStart
from ops.serving.plan import PlannedModel, plan_models
from ops.settings.settings import Settings
from ops.supervisor.fleet import Fleet

log = logging.getLogger("inferflux.up")


async def register_again(
    fleet: Fleet, settings: Settings, before: Settings, plan: Sequence[PlannedModel]
) -> Sequence[PlannedModel]:
    """The plan that holds from now on: that of `settings` once it is registered, `plan` when no model has changed.

    Raises CannotStart, with nothing changed: a model cannot be served here, the broker is away.
    """
    if settings.models == before.models:
        return plan
    # A model of a hub may have to be downloaded.
    following = await asyncio.to_thread(plan_models, settings)
    ids = {model.settings.id for model in following}
    gone = [model.settings.id for model in plan if model.settings.id not in ids]
    try:
        await fleet.register([model.card() for model in following], gone)
    except BrokerError as error:
        raise CannotStart(str(error)) from None
    log.info("models registered again", extra={"models": sorted(ids), "gone": gone})
    return following
