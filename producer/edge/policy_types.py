"""Bodies and answers of /v1/admin/policy."""

from typing import Any, Literal

from pydantic import BaseModel, Field


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
