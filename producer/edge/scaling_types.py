"""Answer of /v1/admin/autoscale."""

from typing import Literal

from pydantic import BaseModel, Field

from producer.autoscale.need import Reason


class QueueOfClass(BaseModel):
    waiting: int
    running: int
    oldest_age_s: float


class ScalingInputs(BaseModel):
    """What the number comes from; all of it over the whole fleet."""

    queue: dict[str, QueueOfClass] = Field(description="By priority class; a batch counts a tenth of the others.")
    waiting_tokens: int = Field(description="Estimated prompt tokens of what waits.")
    oldest_age_s: float = Field(description="Longest wait but for class batch.")
    refused_per_minute: int = Field(description="Calls of the last minute that found no worker.")
    arrivals_per_s: float = Field(description="Without class batch, with those refused.")
    service_s: float = Field(description="How long a request keeps its slot, as measured.")
    slots_per_worker: float | None = Field(description="Requests a worker runs at once; null before any was seen.")
    served_per_s_per_worker: float | None = Field(description="What one worker does when all its slots are busy.")
    target_queue_wait_s: float


class ScalingView(BaseModel):
    """`desired` over several edges: take the highest."""

    object: Literal["autoscale"] = "autoscale"
    model: str
    desired: int
    current: int = Field(description="Workers that take work now.")
    min_workers: int
    max_workers: int
    idle_to_zero_s: float | None
    reason: Reason = Field(description="What decided.")
    inputs: ScalingInputs


class ScalingList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ScalingView]
