"""Bodies and answers of /v1/admin/rate_limit."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.policy import Count, LimitSet

Name = Annotated[str, Field(min_length=1, max_length=256)]


class LimitsChange(BaseModel):
    """What is absent stays as it is. Numbers are for each key that has no limits of its own; 0 is no limit."""

    model_config = ConfigDict(extra="forbid", strict=True)

    requests_per_minute: Count | None = Field(None, description="In any 60 seconds; each prompt of a call counts.")
    tokens_per_minute: Count | None = Field(None, description="Of prompts and answers, in any 60 seconds.")
    concurrent_requests: Count | None = Field(None, description="Waiting and running at a time.")
    tokens_per_day: Count | None = Field(None, description="Of prompts and answers, in a day of UTC.")
    tenants: dict[Name, LimitSet | None] | None = Field(
        None, description="Limits over all keys of a tenant, by its name; null takes them away."
    )
    models: dict[Name, LimitSet | None] | None = Field(
        None, description="Limits over all that use a model, by its id; null takes them away."
    )


class LimitsView(BaseModel):
    object: Literal["rate_limit"] = "rate_limit"
    source: Literal["file", "store"] = Field(description="store: decided by an administrator; file: configured.")
    requests_per_minute: int
    tokens_per_minute: int
    concurrent_requests: int
    tokens_per_day: int
    tenants: dict[str, LimitSet]
    models: dict[str, LimitSet]


class UseView(BaseModel):
    """What is used of one limit at this moment."""

    object: Literal["rate_limit.use"] = "rate_limit.use"
    who: Literal["key", "tenant", "model"]
    name: str
    limit_name: str = Field(description="The field of the limit, such as requests_per_minute.")
    limit: int
    used: int = Field(description="Tokens are reserved by calls that run, as what they may come to.")


class UseList(BaseModel):
    object: Literal["list"] = "list"
    data: list[UseView]
