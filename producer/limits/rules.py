"""Whose limits a call meets. Pure."""

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from producer.config import KeySpec
from producer.policy.effective import EffectivePolicy
from schemas.policy import LimitSet
from schemas.requests import Identity


class Who(StrEnum):
    """What a limit is of; also a word of the counter's name."""

    KEY = "key"
    TENANT = "tenant"
    MODEL = "model"


class Rule(NamedTuple):
    """`name` is the id of the key, tenant or model."""

    who: Who
    name: str
    limits: LimitSet


class Rules:
    """The limits of this moment. `owner_of` names a configured key as its identity does."""

    def __init__(self, policy: EffectivePolicy, owner_of: Callable[[KeySpec], str]) -> None:
        self._limits = policy.limits
        self._own = {owner_of(spec): spec.limits for spec in policy.file_keys if spec.limits is not None}
        self._keys = [*map(owner_of, policy.file_keys), *(key.id for key in policy.stored_keys)]
        self._own |= {key.id: key.limits for key in policy.stored_keys if key.limits is not None}

    def all(self) -> list[Rule]:
        """Every rule that a name is known for: not those of keys that nobody configured or stored."""
        rules = [Rule(Who.KEY, name, self._own.get(name, self._limits.per_key)) for name in self._keys]
        rules += [Rule(Who.TENANT, name, limits) for name, limits in self._limits.tenants.items()]
        rules += [Rule(Who.MODEL, name, limits) for name, limits in self._limits.models.items()]
        return [rule for rule in rules if not rule.limits.is_empty]

    def of(self, identity: Identity, model: str) -> list[Rule]:
        """The rules with any limit, the key's own first."""
        none = LimitSet()
        rules = (
            Rule(Who.KEY, identity.owner, self._own.get(identity.owner, self._limits.per_key)),
            Rule(Who.TENANT, identity.tenant, self._limits.tenants.get(identity.tenant, none)),
            Rule(Who.MODEL, model, self._limits.models.get(model, none)),
        )
        return [rule for rule in rules if not rule.limits.is_empty]
