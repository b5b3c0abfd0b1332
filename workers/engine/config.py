"""What an operator may set about an engine."""

from dataclasses import dataclass, field

from workers.kv.config import KvConfig


@dataclass(frozen=True, slots=True)
class FairnessConfig:
    """Who gives way to whom once all places are taken.

    `enable_preemption`: class high takes the place of a running sequence of a lower class. `max_timeslice_tokens`:
    after so many tokens a sequence gives way to one of its class or a higher one that waits; 0 is never.
    `parked_kv_bytes` is the host memory for the KV of those that gave way; what finds no room there is computed again.
    """

    enable_preemption: bool = False
    max_timeslice_tokens: int = 0
    parked_kv_bytes: int = 256 * 2**20

    def __post_init__(self) -> None:
        if self.max_timeslice_tokens < 0:
            raise ValueError(f"max_timeslice_tokens must be at least 0, not {self.max_timeslice_tokens}")
        if self.parked_kv_bytes < 0:
            raise ValueError(f"parked_kv_bytes must be at least 0, not {self.parked_kv_bytes}")

    @property
    def is_on(self) -> bool:
        """Whether anybody may ever have to give way."""
        return self.enable_preemption or self.max_timeslice_tokens > 0


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """`max_output_tokens` bounds a request that names no maximum. `max_batch_tokens` lowers the runner's own step
    budget.

    `template_timeout_s` is how long a chat template may take; it runs between two steps, so all sequences wait for it.
    """

    max_output_tokens: int = 1024
    max_batch_tokens: int | None = None
    template_timeout_s: float = 2.0
    fairness: FairnessConfig = field(default_factory=FairnessConfig)
    kv: KvConfig = field(default_factory=KvConfig)

    def __post_init__(self) -> None:
        if self.max_output_tokens < 1:
            raise ValueError(f"max_output_tokens must be at least 1, not {self.max_output_tokens}")
        if self.max_batch_tokens is not None and self.max_batch_tokens < 1:
            raise ValueError(f"max_batch_tokens must be at least 1, not {self.max_batch_tokens}")
        if self.template_timeout_s <= 0:
            raise ValueError(f"template_timeout_s must be above 0, not {self.template_timeout_s}")
