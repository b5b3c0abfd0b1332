"""What a worker is told to do, resolved by the command line from the settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from schemas.control import ModelCard, ServedModel
from workers.engine.config import FairnessConfig
from workers.kv.config import KvConfig
from workers.runners.base import RunnerSpec


@dataclass(frozen=True, slots=True)
class WorkerModel:
    """One model to serve. `reason` says why this backend was chosen, for `/v1/models` and the ready block.

    `memory_bytes` is about what it will take, weights and KV; 0 where nobody can tell.
    """

    spec: RunnerSpec
    backend: str
    reason: str
    max_output_tokens: int
    memory_bytes: int = 0


# A stage by name, and how much of it is done, 0 to 1; None where nobody can tell.
Progress = Callable[[str, float | None], None]


class NotForThisWorker(Exception):
    """Another process has to serve the model, as this one is bound to another backend. Not a failure."""


def _none(_: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """`models` are its own: they are loaded whether registered or not, and stand for a card that comes from a
    configuration. Where `configured` has a digest for one, only for the card of that same configuration.

    `wants(model)` says which other registered models it serves, and `plan` finds out how; it runs on a thread of its
    own, and raises RunnerError and NotForThisWorker. `must_serve`: a start at which no model loads is a failure.
    `memory_bytes` bounds what its models take together, by their estimates.

    `metrics_port` None takes the first free port from 9101 on. `stuck_step_s`: a forward pass that takes longer
    means that the device hangs, and the worker gives its work back and leaves. `is_supervised`: whoever started it
    starts it again when it ends.
    """

    worker_id: str
    models: tuple[WorkerModel, ...]
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    stuck_step_s: float = 60.0
    lanes: int = 1
    is_supervised: bool = False
    fairness: FairnessConfig = field(default_factory=FairnessConfig)
    kv: KvConfig = field(default_factory=KvConfig)
    configured: Mapping[str, str] = field(default_factory=dict)
    wants: Callable[[str], bool] = _none
    plan: Callable[[ModelCard, Progress], WorkerModel] | None = None
    must_serve: bool = True
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """What a worker tells whoever started it, once it serves. `failed` is the reason by model."""

    metrics_url: str
    models: tuple[ServedModel, ...]
    failed: Mapping[str, str] = field(default_factory=dict)
