"""Policy stores as edges have them, without the edges."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.connection import BrokerConfig, Connection
from broker.roles import Role
from producer.auth.api_keys import ApiKeys
from producer.config import EdgeConfig, KeySpec, PolicyConfig
from producer.policy.live import LivePolicy
from producer.policy.store import PolicyStore
from schemas.policy import LimitSet, LimitsPolicy, PolicyDocument
from schemas.requests import Identity
from tests.conftest import Broker

PASSPHRASE = "correct horse battery staple"
ACTOR = Identity(owner="root", scopes=("admin",))
FILE_KEY = "file-key-secret"


@dataclass
class Beside:
    """A store and what it feeds."""

    store: PolicyStore
    live: LivePolicy
    keys: ApiKeys

    async def set_limit(self, requests_per_minute: int) -> PolicyDocument:
        limits = LimitsPolicy(per_key=LimitSet(requests_per_minute=requests_per_minute))
        return await self.store.change(
            ACTOR, "limits.set", lambda document: document.model_copy(update={"limits": limits})
        )

    @property
    def limit(self) -> int:
        return self.live.current.limits.per_key.requests_per_minute


def policy_config(folder: Path | None = None, passphrase: str | None = PASSPHRASE) -> PolicyConfig:
    """Without a passphrase the key is in the folder; without a folder there is no copy."""
    if folder is None:
        return PolicyConfig(passphrase=passphrase)
    return PolicyConfig(passphrase, folder / "policy.key", folder / "policy.store")


@contextlib.asynccontextmanager
async def running_store(
    broker: Broker, config: PolicyConfig | None = None, *, pepper: bytes = b"pepper", **options: Any
) -> AsyncIterator[Beside]:
    """A store with a connection of its own, started."""
    connection = await Connection.open(
        BrokerConfig(broker.server.url, Role.EDGE, "policy-of-a-test", broker.server.credentials)
    )
    try:
        config = config if config is not None else policy_config()
        edge = EdgeConfig("e1", pepper, (KeySpec(FILE_KEY, name="filed"),), policy=config)
        live, keys = LivePolicy(edge), ApiKeys(pepper)
        live.on_change(keys.learn)
        store = PolicyStore(connection, live, config, keys.pepper_check, **options)
        await store.start()
        try:
            yield Beside(store, live, keys)
        finally:
            await store.close()
    finally:
        await connection.close()
