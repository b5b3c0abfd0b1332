"""What the process that measures is told, and what it tells: a JSON object a line."""

from dataclasses import fields

from pydantic import BaseModel, ConfigDict

from ops.calibration.verdict import Figures
from workers.runners.base import RunnerSpec

_SPEC_FIELDS = tuple(field.name for field in fields(RunnerSpec) if field.name != "progress")


class Request(BaseModel):
    """A score below `floor` is of no interest. `parent` is the process without which there is no use in going on. The
    spec is `RunnerSpec`, field by field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: str
    spec: dict[str, int | str | None]
    sequences: int
    steps: int
    seconds: float
    floor: float = 0.0
    parent: int


class Message(BaseModel):
    """First that the model is open, then figures or why there are none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    is_open: bool = False
    figures: Figures | None = None
    failure: str = ""


def spec_document(spec: RunnerSpec) -> dict[str, int | str | None]:
    return {name: getattr(spec, name) for name in _SPEC_FIELDS}


def runner_spec(document: dict[str, int | str | None]) -> RunnerSpec:
    return RunnerSpec(**document)  # type: ignore[arg-type]
