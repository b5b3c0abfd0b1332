"""What a process that computes is told, and what it tells: a JSON object each."""

from pydantic import BaseModel, ConfigDict

from ops.bench.quality.divergence import Divergence


class Request(BaseModel):
    """`table` is the file of the reference's logarithms: written where `windows` is None, else compared with.
    `num_tokens` are those of each passage; `shapes` see forcing.py; `parent` is the process without which there is no
    use in it. The spec is `RunnerSpec`, field by field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: str
    spec: dict[str, int | str | None]
    table: str
    parent: int
    num_tokens: int = 0
    windows: list[list[int]] | None = None
    shapes: tuple[int, ...] = ()


class Told(BaseModel):
    """`description` is what the runner says of itself, `windows` are the reference's; `failure` is why there is nothing
    else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = ""
    windows: list[list[int]] | None = None
    shapes: dict[int, Divergence] = {}
    failure: str = ""
