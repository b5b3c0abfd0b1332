"""What names of models stand for over the whole fleet."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1, max_length=256)]
MAX_ALIASES = 1024


class RoutingPolicy(BaseModel):
    """`default_model` is used where a call names none, and `aliases` are further names of models, by name.

    Both come before what the models' own cards say; the id of a model always means that model. None: as the cards say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    default_model: Name | None = None
    aliases: Annotated[dict[Name, Name], Field(max_length=MAX_ALIASES)] = Field(default_factory=dict)
