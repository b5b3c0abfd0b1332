"""Bodies and answers of /v1/admin/api_keys."""

import time
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from producer.config import Scope
from schemas.errors import ErrorCode, ServingError
from schemas.policy import LimitSet
from schemas.requests import PriorityClass

Name = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
Scopes = Annotated[list[Scope], Field(min_length=1, max_length=3)]
Globs = Annotated[list[Annotated[str, Field(min_length=1, max_length=256)]], Field(min_length=1, max_length=256)]
Seconds = Annotated[int, Field(ge=0, le=10 * 366 * 86400)]
UnixTime = Annotated[int, Field(ge=0, le=2**40)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IssueKey(_Body):
    name: Name
    scopes: Scopes = Field([Scope.GENERATE, Scope.READ])
    tenant: Name = "default"
    models: Globs = Field(["*"], description="Globs over model ids.")
    ceiling: PriorityClass | None = Field(None, description="Highest class; null: high with scope admin, else normal.")
    limits: LimitSet | None = Field(None, description="null: those of all keys.")
    expires_at: UnixTime | None = Field(None, description="Unix time in seconds; null is never.")
    expires_in_s: Seconds | None = Field(None, description="Instead of expires_at.")

    @model_validator(mode="after")
    def _one_expiry(self) -> "IssueKey":
        if self.expires_at is not None and self.expires_in_s is not None:
            raise ValueError("expires_at and expires_in_s exclude each other")
        return self

    @property
    def expiry(self) -> int | None:
        return self.expires_at if self.expires_in_s is None else int(time.time()) + self.expires_in_s


class UpdateKey(_Body):
    """Only what is given changes."""

    name: Name | None = None
    scopes: Scopes | None = None
    models: Globs | None = None
    ceiling: PriorityClass | None = None
    limits: LimitSet | None = None
    expires_at: UnixTime | None = None

    def changes(self) -> dict[str, Any]:
        """Fields of a stored key and their new values. Raises ServingError (400) when one must not be null."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        for name in ("name", "scopes", "models"):
            if name in given and given[name] is None:
                raise ServingError(ErrorCode.INVALID_PARAMETER, f"'{name}' must not be null.", param=name)
        if not given:
            known = ", ".join(type(self).model_fields)
            raise ServingError(ErrorCode.INVALID_PARAMETER, f"Nothing is to be changed; possible are {known}.")
        return {name: tuple(map(str, value)) if isinstance(value, list) else value for name, value in given.items()}


class RotateKey(_Body):
    grace_s: Annotated[int, Field(ge=0, le=90 * 86400)] = Field(
        3600, description="Seconds for which the secret before opens the same."
    )


class ApiKeyView(BaseModel):
    object: Literal["api_key"] = "api_key"
    id: str
    name: str
    source: Literal["file", "store"]
    status: Literal["active", "expired", "revoked"]
    scopes: list[str]
    tenant: str
    models: list[str]
    ceiling: PriorityClass | None
    limits: LimitSet | None
    created_at: int | None
    expires_at: int | None
    previous_until: int | None = Field(description="Until then the secret before the last rotation opens the same.")
    revoked_at: int | None


class NewApiKey(ApiKeyView):
    key: str = Field(description="The key itself. It is shown this once.")


class ApiKeyList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ApiKeyView]


class RevokedApiKey(BaseModel):
    id: str
    object: Literal["api_key"] = "api_key"
    revoked: Literal[True]
