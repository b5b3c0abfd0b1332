"""What an operator may set about cached KV."""

from dataclasses import dataclass
from enum import StrEnum


class CacheScope(StrEnum):
    """Among whose requests KV is shared. `TENANT`: nobody can tell by the speed of an answer what others asked."""

    GLOBAL = "global"
    TENANT = "tenant"


class Eviction(StrEnum):
    LRU = "lru"
    CLOCK = "clock"


@dataclass(frozen=True, slots=True)
class KvConfig:
    is_cached: bool = True
    scope: CacheScope = CacheScope.GLOBAL
    eviction: Eviction = Eviction.LRU
