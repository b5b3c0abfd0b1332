"""Documents in the registry buckets: what should be served, and who serves it now."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ModelCard(BaseModel):
    """A known model (bucket `models`): written at start from configuration, later by administrators.

    `queue_max` and `queue_max_tokens` bound what waits in one class: requests, and their estimated prompt tokens (0: no
    bound).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    source: str
    backend: str = "auto"
    default: bool = False
    aliases: tuple[str, ...] = ()
    created: int
    max_output_tokens: int = 1024
    queue_max: int = Field(default=256, ge=0)
    queue_max_tokens: int = Field(default=131_072, ge=0)
    no_worker: Literal["refuse", "queue"] = "refuse"
    origin: Literal["config", "admin", "manifest"] = "config"


class ServedModel(BaseModel):
    """One model on one worker, with the facts only a loaded model can tell.

    `context` is the most tokens a sequence may have. `max_token_bytes` bounds what one token can stand for, so that an
    edge without a tokenizer refuses only what certainly cannot fit; `bytes_per_token` is the measured mean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    backend: str
    reason: str
    fingerprint: str
    context: int
    slots: int
    max_token_bytes: int
    bytes_per_token: float
    has_chat_template: bool


class WorkerAdvert(BaseModel):
    """Presence of a worker (bucket `workers`, renewed every 2 s, gone after 6 s)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    host: str
    pid: int
    version: str
    models: tuple[ServedModel, ...]
    free_slots: int
    draining: bool = False
