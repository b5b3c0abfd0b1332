"""Documents in the registry buckets: what should be served, and who serves it now.

Here no field is taken that is not known; readers of the buckets ignore such ones (`broker/documents.py`).
"""

import hashlib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x20\x7f]+$")]
RESERVED_NAME = "default"


Source = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class ServingOptions(BaseModel):
    """How a model is served, as settings, API and manifest say it. None leaves a choice to the backend.

    The ranges are those of the settings table. `chat_template` is Jinja text, or a file on the worker's machine.
    `queue_max` and `queue_max_tokens` bound what waits in one class: requests, and their estimated prompt tokens (0: no
    bound).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Literal["auto", "llama_cpp", "torch", "mlx", "echo"] = "auto"
    aliases: tuple[Name, ...] = ()
    context: int | None = Field(default=None, strict=True, ge=16, le=2**24)
    sequences: int | None = Field(default=None, strict=True, ge=1, le=1024)
    threads: int | None = Field(default=None, strict=True, ge=1, le=1024)
    gpu_layers: int | None = Field(default=None, strict=True, ge=-1, le=100_000)
    kv_type: Literal["f32", "f16", "bf16", "q8_0", "q4_0"] | None = None
    batch_tokens: int | None = Field(default=None, strict=True, ge=16, le=2**16)
    chat_template: Annotated[str, StringConstraints(min_length=1, max_length=2**18)] | None = None
    max_output_tokens: int = Field(default=1024, strict=True, ge=1, le=2**20)
    queue_max: int = Field(default=256, strict=True, ge=0, le=10_000_000)
    queue_max_tokens: int = Field(default=131_072, strict=True, ge=0, le=10**12)
    no_worker: Literal["refuse", "queue"] = "refuse"
    origin: Literal["config", "admin", "manifest"] = "config"


class ModelCard(ServingOptions):
    """A model that should be served (bucket `models`): from a configuration, an administrator or a manifest.

    `configured` is the digest of the configuration that was last looked at for this id: while it stays the same, what
    an administrator changed since is kept. `load_count` grows when somebody asks for the same model once more, as for a
    file that was exchanged. `created` is Unix time.
    """

    id: Name
    source: Source
    default: bool = False
    created: int
    origin: Literal["config", "admin", "manifest"] = "config"
    configured: str = ""
    load_count: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        return (self.id, *self.aliases)

    def load_key(self) -> str:
        """A digest of what a worker loads: two cards with the same key are served by the same engine.

        An option that is as without it does not count, so releases with and without it find the same key.
        """
        text = self.model_dump_json(include=_LOADED, exclude_defaults=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


_LOADED = {
    *("source", "backend", "context", "sequences", "threads", "gpu_layers", "kv_type", "batch_tokens"),
    *("chat_template", "max_output_tokens", "load_count"),
}


class LoadingModel(BaseModel):
    """A model that a worker is about to serve, or to serve anew. `fraction` is None where nobody can tell.

    `elapsed_s` is seconds since the loading began.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    stage: str
    fraction: float | None = None
    elapsed_s: float = 0.0


class ServedModel(BaseModel):
    """One model on one worker, with the facts only a loaded model can tell.

    `context` is the most tokens a sequence may have. `max_token_bytes` bounds what one token can stand for, so that an
    edge without a tokenizer refuses only what certainly cannot fit; `bytes_per_token` is the measured mean.
    `load_key` is that of the card which was loaded; empty for a model of the worker's own configuration.
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
    load_key: str = ""


class WorkerAdvert(BaseModel):
    """Presence of a worker (bucket `workers`, renewed every 2 s, gone after 6 s).

    `failed` says why a model is not served here, or not as its card says now; an earlier load of it may serve on.
    `failed_keys` are the load keys of these, `skipped` those of models that a process on another backend has to serve,
    as far as it was to serve them. A cordoned one takes no new work and stays; one that drains leaves when it
    has done what it has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    host: str
    pid: int
    version: str
    models: tuple[ServedModel, ...]
    free_slots: int
    draining: bool = False
    loading: tuple[LoadingModel, ...] = ()
    failed: dict[str, str] = Field(default_factory=dict)
    failed_keys: dict[str, str] = Field(default_factory=dict)
    cordoned: bool = False
    skipped: dict[str, str] = Field(default_factory=dict)

    @property
    def takes_work(self) -> bool:
        """Whether new requests can go to it."""
        return not (self.draining or self.cordoned)
