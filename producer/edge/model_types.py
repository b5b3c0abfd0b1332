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


class AdminModelList(BaseModel):
    object: Literal["list"]
    data: list[AdminModel]


class UnloadedModel(BaseModel):
    id: str
    object: Literal["model"]
    deleted: bool


class DefaultModelView(BaseModel):
    object: Literal["model.default"]
    id: str | None
