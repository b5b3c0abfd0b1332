"""Bodies and answers of /v1/admin/guardrails."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr


class GuardrailsChange(BaseModel):
    """What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    blocklist: list[StrictStr] = Field(default_factory=list, description="Words and phrases; all of them.")
    patterns: list[StrictStr] = Field(default_factory=list, description="RE2 expressions; all of them.")
    opa_endpoint: StrictStr | None = Field(
        None, description="file:///….rego, file:///….json or http(s)://; null: none."
    )
    opa_timeout_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    fail_open: StrictBool = False

    @property
    def given(self) -> dict[str, Any]:
        """The fields that are to change, as the policy has them."""
        given = self.model_dump(include=self.model_fields_set)
        return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


class GuardrailsView(BaseModel):
    object: Literal["guardrails"] = "guardrails"
    source: Literal["file", "store"] = Field(description="store: decided by an administrator; file: configured.")
    blocklist: list[str]
    patterns: list[str]
    opa_endpoint: str | None
    opa_timeout_s: float
    fail_open: bool
