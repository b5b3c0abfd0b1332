"""What administrators decide while the service runs, as one document. No secret stands in it, only keyed hashes.

A section that is None is not decided here: then the configuration file's holds.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from schemas.oidc_policy import OidcPolicy
from schemas.requests import PriorityClass
from schemas.routing import RoutingPolicy

__all__ = [
    "GuardrailsPolicy",
    "LimitSet",
    "LimitsPolicy",
    "OidcPolicy",
    "PolicyDocument",
    "RevokedKey",
    "RoutingPolicy",
    "StoredKey",
]

Count = Annotated[int, Field(ge=0, le=10**15)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LimitSet(_Part):
    """What one key, tenant or model may use over the whole fleet; 0 is no limit."""

    requests_per_minute: Count = 0
    tokens_per_minute: Count = 0
    concurrent_requests: Count = 0
    tokens_per_day: Count = 0

    @property
    def is_empty(self) -> bool:
        return not any(self.model_dump().values())


class LimitsPolicy(_Part):
    """`per_key` is for each key that has none of its own; tenants and models by their ids."""

    per_key: LimitSet = LimitSet()
    tenants: dict[str, LimitSet] = Field(default_factory=dict)
    models: dict[str, LimitSet] = Field(default_factory=dict)


class GuardrailsPolicy(_Part):
    """What neither prompts nor answers may hold, and who else decides on requests.

    `patterns` are RE2 expressions. `opa_endpoint` is `file://….rego`, `file://….json` or an OPA server's data API.
    `fail_open` lets requests pass that nobody could decide on.
    """

    blocklist: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    opa_endpoint: str | None = None
    opa_timeout_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    fail_open: bool = False


class StoredKey(_Part):
    """An API key by the keyed hash of its secret. Times are Unix seconds; `expires_at` None is never.

    Until `previous_until` the secret before the last rotation opens the same.
    """

    id: str
    digest: Digest
    name: str
    scopes: tuple[str, ...]
    tenant: str = "default"
    models: tuple[str, ...] = ("*",)
    ceiling: PriorityClass | None = None
    limits: LimitSet | None = None
    created_at: int
    expires_at: int | None = None
    previous_digest: Digest | None = None
    previous_until: int | None = None


class RevokedKey(_Part):
    """A key that opens nothing any more, wherever else it is configured. `id` of a stored one, empty of others."""

    name: str
    id: str = ""
    revoked_at: int


class PolicyDocument(_Part):
    """`api_keys` by id, `revoked` by the digest of the secret; `pepper_check` tells which pepper the digests need.

    The last four say who made this version, when (Unix seconds) and by what.
    """

    api_keys: dict[str, StoredKey] = Field(default_factory=dict)
    revoked: dict[Digest, RevokedKey] = Field(default_factory=dict)
    limits: LimitsPolicy | None = None
    guardrails: GuardrailsPolicy | None = None
    oidc: OidcPolicy | None = None
    routing: RoutingPolicy | None = None
    pepper_check: Digest | None = None
    changed_at: int = 0
    changed_by: str = ""
    action: str = ""
    target: str = ""

    @property
    def decides_on_keys(self) -> bool:
        """Whether somebody administers keys here. Then the well-known key of a fresh installation opens nothing."""
        return bool(self.api_keys or self.revoked)
