"""Bodies and answers of /v1/admin/oidc."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from schemas.oidc_policy import OidcPolicy
from schemas.oidc_rules import ALGORITHMS, SCOPES


class OidcChange(BaseModel):
    """What is left out stays as it is. The first time it takes issuer and audience."""

    model_config = ConfigDict(extra="forbid")

    issuer: StrictStr = Field("", description="Its address, as it stands in the claim iss.")
    audience: StrictStr = Field("", description="What must stand in the claim aud.")
    algorithms: list[StrictStr] = Field(default_factory=list, description=f"Of signatures: {', '.join(ALGORITHMS)}.")
    token_types: list[StrictStr] = Field(default_factory=list, description="What the header typ may be.")
    subject_claim: StrictStr = Field("", description="Claims are named, or by a path with dots.")
    tenant_claim: StrictStr = ""
    scopes_claim: StrictStr = ""
    models_claim: StrictStr = ""
    scope_map: dict[str, list[StrictStr]] = Field(
        default_factory=dict, description=f"All of them: values of the scopes claim, and what each opens of {SCOPES}."
    )
    allow_admin: StrictBool = Field(False, description="Whether tokens may open administration.")
    ceiling: StrictStr | None = Field(None, description="The highest class; null: as for API keys.")
    leeway_s: StrictFloat | StrictInt = 30.0
    client_id: StrictStr | None = Field(None, description="What inferctl login asks with.")
    login_scopes: list[StrictStr] = Field(default_factory=list)
    resource: StrictStr | None = Field(None, description="This service's public address; null: what it is called by.")

    @property
    def given(self) -> dict[str, Any]:
        return self.model_dump(include=self.model_fields_set)


class OidcView(BaseModel):
    object: Literal["oidc"] = "oidc"
    source: Literal["file", "store"] = Field(description="store: decided by an administrator; file: configured.")
    enabled: bool = Field(description="Whether tokens are taken at all.")
    policy: OidcPolicy | None
