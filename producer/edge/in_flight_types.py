"""Answers of /v1/admin/requests."""

from typing import Literal

from pydantic import BaseModel, Field


class InFlightView(BaseModel):
    """A request that waits or runs; a call with several prompts has one for each. No text stands in it."""

    object: Literal["request"] = "request"
    id: str
    model: str
    priority: Literal["high", "normal", "low", "batch"]
    tenant: str
    owner: str | None = Field(description="The id of its key, or the subject of its token.")
    edge: str
    state: Literal["queued", "running"]
    worker: str | None = Field(description="Who runs it.")
    age_s: float = Field(description="Since it was queued.")
    tokens: int | None = Field(description="Generated so far; null while its prompt is being computed.")
    deadline: float | None = Field(description="Unix time in seconds.")


class InFlightList(BaseModel):
    """The oldest first. `truncated`: there may be more than these; narrow the filter or raise the limit."""

    object: Literal["list"] = "list"
    data: list[InFlightView]
    truncated: bool


class CancelledByAdministrator(BaseModel):
    object: Literal["request"] = "request"
    id: str
    cancelled: bool = Field(description="false: it had its end before.")
