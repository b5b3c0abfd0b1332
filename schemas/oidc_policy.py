"""Whose tokens are taken, and what their claims mean."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from schemas.oidc_rules import (
    ALGORITHMS,
    DEFAULT_ALGORITHMS,
    MAX_LEEWAY_S,
    SCOPES,
    TOKEN_TYPES,
    check_issuer,
    check_resource,
)
from schemas.requests import PriorityClass

Name = Annotated[str, Field(min_length=1, max_length=256)]
Algorithm = Annotated[str, Field(pattern=f"^({'|'.join(ALGORITHMS)})$")]
Scope = Annotated[str, Field(pattern=f"^({'|'.join(SCOPES)})$")]


class OidcPolicy(BaseModel):
    """Claims are named as they stand in a token, or by a path with dots (`realm_access.roles`).

    `scope_map` has values of the scopes claim and the scopes that they open; without any, the claim's own words count.
    `ceiling` None is as for API keys: high with the scope admin, else normal. `resource` is this service's public
    address; without it, it is what a client calls it. `client_id` and `login_scopes` are what `inferctl login` asks
    with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str
    audience: Name
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = DEFAULT_ALGORITHMS
    token_types: Annotated[tuple[Name, ...], Field(min_length=1)] = TOKEN_TYPES
    subject_claim: Name = "sub"
    tenant_claim: Name = "tenant"
    scopes_claim: Name = "scope"
    models_claim: Name = "models"
    scope_map: dict[Name, tuple[Scope, ...]] = Field(default_factory=dict)
    allow_admin: bool = False
    ceiling: PriorityClass | None = None
    leeway_s: Annotated[float, Field(ge=0, le=MAX_LEEWAY_S)] = 30.0
    client_id: Name | None = None
    login_scopes: tuple[Name, ...] = ("openid", "offline_access")
    resource: str | None = None

    @field_validator("issuer")
    @classmethod
    def _issuer(cls, issuer: str) -> str:
        check_issuer(issuer)
        return issuer

    @field_validator("resource")
    @classmethod
    def _resource(cls, resource: str | None) -> str | None:
        if resource is not None:
            check_resource(resource)
        return resource
