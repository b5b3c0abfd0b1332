"""Bodies of the administration of models."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from producer.edge.openai_types import ModelInfo
from schemas.control import Name, ServingOptions, Source


class LoadModel(ServingOptions):
    """A model to load. What is not given is as in a configuration without it."""

    id: Name | None = Field(None, description="Absent: the file's stem, or the package's name.")
    source: Source = Field(description="As in the setting models.<id>.source; a path is one of the worker's machine.")
    default: bool = Field(False, description="Whether it becomes the default model.")


class ChangeModel(ServingOptions):
    """What is given changes; null gives a choice back to the backend."""

    source: Source | None = None


class DefaultModel(BaseModel):
    id: Name


class AdminModel(ModelInfo):
    state: Literal["waiting", "loading", "served", "failed"]
    origin: Literal["config", "admin", "manifest"]
    source: str
    options: dict[str, Any]


class SkippedModel(BaseModel):
    id: str
    reason: str


class ManifestView(BaseModel):
    """The manifest of models as the edge that answers follows it."""

    path: str
    used: bool = Field(description="Whether what stands in the file now is what is registered.")
    since: int = Field(description="Unix time since which it is used, or is not.")
    error: str | None = Field(description="Why it is not used, as of the last attempt.")
    models: list[str] = Field(description="Those of the last manifest that could be used: they stay.")
    skipped: list[SkippedModel] = Field(description="Models in it that others registered: they are left as they are.")


class AdminModelList(BaseModel):
    object: Literal["list"]
    data: list[AdminModel]
    manifest: ManifestView | None = Field(description="Null where the edge that answers follows none.")


class UnloadedModel(BaseModel):
    id: str
    object: Literal["model"]
    deleted: bool


class DefaultModelView(BaseModel):
    object: Literal["model.default"]
    id: str | None
