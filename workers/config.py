"""What a worker is told to do, resolved by the command line from the settings."""

from dataclasses import dataclass, field

from schemas.control import ServedModel
from workers.engine.config import FairnessConfig
from workers.kv.config import KvConfig
from workers.runners.base import RunnerSpec


@dataclass(frozen=True, slots=True)
class WorkerModel:
    """One model to serve. `reason` says why this backend was chosen, for `/v1/models` and the ready block."""

    spec: RunnerSpec
    backend: str
    reason: str
    max_output_tokens: int


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """`metrics_port` None takes the first free port from 9101 on. `stuck_step_s`: a forward pass that takes longer
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


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """What a worker tells whoever started it, once it serves."""

    metrics_url: str
    models: tuple[ServedModel, ...]
