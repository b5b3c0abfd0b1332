"""Bodies and answers of /v1/admin/policy."""

from typing import Annotated, Any, Literal

from pydantic import Base64Bytes, BaseModel, ConfigDict, Field, SecretStr

Passphrase = Annotated[SecretStr, Field(min_length=12, max_length=1024)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rollback(_Body):
    version: Annotated[int, Field(ge=1, strict=True)]


class Reset(_Body):
    section: Literal["limits", "guardrails", "oidc", "routing"]


class ExportPolicy(_Body):
    passphrase: Passphrase | None = Field(None, description="null: encrypted as it is in the broker.")


class ImportPolicy(_Body):
    document: Base64Bytes = Field(description="What an export gave.")
    passphrase: SecretStr | None = Field(None, description="That of the export; null: that of the store.")


class RotatePassphrase(_Body):
    passphrase: Passphrase


class KeyCounts(BaseModel):
    """Keys that hold by where they come from, and those that were revoked."""

    file: int
    store: int
    revoked: int


class SectionView(BaseModel):
    source: Literal["file", "store"] = Field(description="store: decided by an administrator; file: configured.")
    value: Any


class PolicyView(BaseModel):
    object: Literal["policy"] = "policy"
    version: int = Field(description="Counts all changes; 0 when nothing was ever changed.")
    changed_at: int | None = Field(description="Unix time in seconds.")
    changed_by: str | None
    encryption: Literal["passphrase", "key file"] | None = Field(description="null: nothing is stored.")
    fault: str | None = Field(description="Why the newest version is not used and nothing can be changed here.")
    api_keys: KeyCounts
    sections: dict[str, SectionView]


class VersionView(BaseModel):
    object: Literal["policy.version"] = "policy.version"
    version: int | None = Field(description="null: it cannot be read, see fault.")
    changed_at: int
    changed_by: str | None
    action: str | None
    target: str | None
    is_current: bool
    fault: str | None


class VersionList(BaseModel):
    object: Literal["list"] = "list"
    data: list[VersionView]
