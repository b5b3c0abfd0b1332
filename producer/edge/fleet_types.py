"""Bodies and answers of /v1/admin/workers, /v1/admin/cache and /v1/admin/queues."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictStr, model_validator

from producer.edge.openai_types import Message
from schemas.worker_orders import CacheStatus, DrainMode

Name = Annotated[StrictStr, Field(min_length=1, max_length=256)]
_MAX_MESSAGES = 4096


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Drain(_Body):
    mode: DrainMode = Field(
        "hand_back", description="hand_back: what runs goes to other workers at once; finish: it runs to its end here."
    )


class WorkerModelView(BaseModel):
    """Numbers are null while the worker does not answer."""

    id: str
    backend: str
    slots: int
    busy: int | None
    waiting: int | None = Field(description="Requests in hand that gave their place to others.")
    free: int | None = Field(description="Requests that could start now.")


class WorkerView(BaseModel):
    object: Literal["worker"] = "worker"
    id: str
    host: str
    pid: int
    version: str
    state: Literal["serving", "cordoned", "draining"]
    cordoned: bool
    draining: bool
    answers: bool = Field(description="Whether it answered just now.")
    last_seen_s: float = Field(description="Seconds since its entry in the registry was renewed.")
    uptime_s: float | None
    supervised: bool | None = Field(description="Whether whoever started it starts it again when it ends.")
    num_requests: int | None = Field(description="Requests in hand.")
    models: list[WorkerModelView]


class WorkerDetail(WorkerView):
    requests: list[str] | None = Field(description="Ids of the requests in hand.")


class WorkerList(BaseModel):
    object: Literal["list"] = "list"
    data: list[WorkerView]


class DrainedWorker(BaseModel):
    object: Literal["worker.drain"] = "worker.drain"
    id: str
    mode: DrainMode
    num_requests: int = Field(description="Requests it had in hand.")
    starts_again: bool = Field(
        description="Under `inferflux up` a worker that ends is started again: cordon one that is to stay out."
    )


class WorkerCacheView(CacheStatus):
    object: Literal["cache"] = "cache"
    worker: str
    model: str


class WorkerCacheList(BaseModel):
    """`unanswered`: workers that did not answer just now."""

    object: Literal["list"] = "list"
    data: list[WorkerCacheView]
    unanswered: list[str]


class ClearCacheBody(_Body):
    """Of all workers and models, or of these."""

    model: Name | None = None
    worker: Name | None = None


class ClearedView(BaseModel):
    worker: str
    model: str
    entries: int
    tokens: int


class ClearedList(BaseModel):
    """What was freed; KV in use stays. `unanswered`: workers that did not answer."""

    object: Literal["cache.cleared"] = "cache.cleared"
    entries: int
    tokens: int
    data: list[ClearedView]
    unanswered: list[str]


class WarmCacheBody(_Body):
    """Text as for /v1/completions, or messages as for /v1/chat/completions; one of them."""

    model: Name | None = Field(None, description="An id or alias; absent: the default model.")
    text: Annotated[StrictStr, Field(min_length=1)] | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=_MAX_MESSAGES)] | None = None
    tenant: Name | None = Field(
        None, description="Whose requests are to find it, where caches are not shared between tenants."
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> "WarmCacheBody":
        if (self.text is None) is (self.messages is None):
            raise ValueError("give text or messages, and not both")
        return self


class WarmedView(BaseModel):
    """On one worker. `error` says why it is not there; then the numbers are null."""

    worker: str
    prompt_tokens: int | None
    computed_tokens: int | None
    cached_tokens: int | None = Field(description="Tokens that were there before.")
    error: str | None


class WarmedList(BaseModel):
    object: Literal["cache.warmed"] = "cache.warmed"
    model: str
    data: list[WarmedView]


class QueueClassView(BaseModel):
    priority: Literal["high", "normal", "low", "batch"]
    waiting: int
    in_hand: int = Field(description="Delivered to a worker and not settled.")
    oldest_age_s: float = Field(description="How long the oldest that waits has waited; 0 with none.")
    waiting_prompt_tokens: int = Field(description="An estimate.")
    asking: int = Field(description="Workers that wait for a request of this class.")


class QueueView(BaseModel):
    object: Literal["queue"] = "queue"
    model: str
    workers: int = Field(description="Workers that take new requests for it.")
    queue_max: int = Field(description="Requests that may wait in one class.")
    queue_max_tokens: int = Field(description="Prompt tokens that may wait in one class; 0: no bound.")
    dead_letters: int
    classes: list[QueueClassView]


class QueueList(BaseModel):
    object: Literal["list"] = "list"
    data: list[QueueView]
