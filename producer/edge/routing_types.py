"""Bodies and answers of /v1/admin/routing."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.routing import Name


class RoutingChange(BaseModel):
    """What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", strict=True)

    default_model: Name | None = Field(None, description="Where a call names none; null: as the models' cards say.")
    aliases: dict[Name, Name | None] | None = Field(
        None, description="Further names, and the model that each stands for; null takes a name away."
    )


class RoutingView(BaseModel):
    object: Literal["routing"] = "routing"
    source: Literal["file", "store"] = Field(description="store: decided by an administrator; file: nothing is.")
    default_model: str | None
    aliases: dict[str, str]
