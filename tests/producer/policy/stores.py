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
from producer.policy.change import Change
from producer.policy.key_changes import issue
from producer.policy.live import LivePolicy
from producer.policy.store import PolicyStore
from schemas.policy import LimitSet, LimitsPolicy, PolicyDocument, StoredKey
from schemas.requests import Identity
from tests.conftest import Broker


def unguarded(change: Change) -> Change:
    return change


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

    async def add_key(self, key_id: str, secret: str) -> PolicyDocument:
        key = StoredKey(id=key_id, digest=self.digest(secret), name=key_id, scopes=("admin",), created_at=1)
        return await self.store.change(ACTOR, "api_key.issue", issue(key), target=key_id)

    def digest(self, secret: str) -> str:
        return self.keys.digest(secret).hex()

    def opens(self, secret: str) -> bool:
        return self.keys.holds(self.keys.digest(secret))

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
        try:
            await store.start()
            yield Beside(store, live, keys)
        finally:
            await store.close()
    finally:
        await connection.close()
