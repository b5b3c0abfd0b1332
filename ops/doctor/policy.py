"""Can the stored policy be opened with the secret that is here? The document itself is not shown."""

import asyncio

from broker.connection import Connection
from broker.errors import BrokerError
from broker.policy_bucket import PolicyBucket
from broker.roles import Role
from ops.doctor.check import Check
from ops.serving.broker import broker_config
from ops.serving.edge import policy_config
from ops.settings.settings import Settings
from producer.policy.copy import PolicyCopy
from producer.policy.errors import PolicyError
from producer.policy.sealer import Sealer
from producer.policy.secret import find_secret

_NAME = "stored policy"
_FIX = "set INFERFLUX_POLICY_PASSPHRASE (or …_FILE) to the passphrase that the other edges have"
_TIMEOUT_S = 5.0


async def check_policy(settings: Settings, role: Role | None) -> Check:
    """The broker's document when `role` can read it, else the copy on this machine."""
    config = policy_config(settings)
    place, envelope = "the copy here", None
    try:
        if role is not None:
            place, envelope = "the broker", await _in_broker(settings, role)
        elif config.store is not None:
            envelope = PolicyCopy(config.store).read()
        if envelope is None:
            return Check(_NAME, True, "nothing is stored")
        opened = await Sealer(find_secret(config)).open(envelope)
    except PolicyError as error:
        return Check(_NAME, False, f"{place}: {error}", _FIX)
    except TimeoutError:
        return Check(_NAME, False, f"{place}: no answer", "inferflux topology apply")
    except (BrokerError, OSError) as error:
        return Check(_NAME, False, f"{place}: {error}", "inferflux doctor --json, once the lines above are ok")
    return Check(_NAME, True, f"{place}: version {opened.version} opens")


async def _in_broker(settings: Settings, role: Role) -> bytes | None:
    """Raises BrokerError, TimeoutError where the bucket is not there."""
    connection = await Connection.open(broker_config(settings, role, "inferflux-doctor"), timeout_s=_TIMEOUT_S)
    bucket = PolicyBucket(connection, lambda: None)
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await bucket.start()
        return bucket.latest.data if bucket.latest is not None else None
    finally:
        await bucket.close()
        await connection.close()
