"""Whether a broker can serve us: new enough, and with JetStream, which a cluster that starts does not have yet."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from broker.errors import ApiError, BrokerError, BrokerTimeout, BrokerUnavailable, BrokerUnsuitable, NoResponders

_log = logging.getLogger("inferflux.broker.connection")

MIN_VERSION = (2, 12)
# A cluster that starts, or has lost too many servers, has no JetStream until most of them are there.
_JETSTREAM_S = 30.0
_RETRY_S = 0.05
_JETSTREAM_OFF = (10039, 10076)


def require_version(version: str) -> None:
    """Raises BrokerUnsuitable."""
    if _parse(version) < MIN_VERSION:
        needed = ".".join(map(str, MIN_VERSION))
        raise BrokerUnsuitable(f"nats-server {version} is too old: {needed} or later is needed")


async def require_jetstream(ask: Callable[[], Awaitable[Any]], url: str) -> None:
    """Wait until JetStream, asked once by `ask`, answers. Raises BrokerUnsuitable, or BrokerUnavailable in the end."""
    deadline, is_told = time.monotonic() + _JETSTREAM_S, False
    while True:
        try:
            await ask()
            return
        except NoResponders:
            raise BrokerUnsuitable(f"JetStream is off on {url}: start it with -js") from None
        except ApiError as error:
            if error.err_code in _JETSTREAM_OFF:
                raise BrokerUnsuitable(f"JetStream is off for this account: {error.description}") from None
            last: BrokerError = error
        except BrokerTimeout as error:
            last = error
        if time.monotonic() > deadline:
            raise BrokerUnavailable(f"JetStream on {url} does not answer: {last}")
        if not is_told:
            _log.warning("waiting for JetStream on %s, which has no leader yet: %s", url, last)
            is_told = True
        await asyncio.sleep(_RETRY_S)


def _parse(text: str) -> tuple[int, ...]:
    numbers = text.partition("-")[0].split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdigit())
