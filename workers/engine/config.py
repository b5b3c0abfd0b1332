"""What an operator may set about an engine."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """`max_output_tokens` bounds a request that names no maximum. `max_batch_tokens` lowers the runner's own step
    budget.

    `template_timeout_s` is how long a chat template may take; it runs between two steps, so all sequences wait for it.
    """

    max_output_tokens: int = 1024
    max_batch_tokens: int | None = None
    template_timeout_s: float = 2.0

    def __post_init__(self) -> None:
        if self.max_output_tokens < 1:
            raise ValueError(f"max_output_tokens must be at least 1, not {self.max_output_tokens}")
        if self.max_batch_tokens is not None and self.max_batch_tokens < 1:
            raise ValueError(f"max_batch_tokens must be at least 1, not {self.max_batch_tokens}")
        if self.template_timeout_s <= 0:
            raise ValueError(f"template_timeout_s must be above 0, not {self.template_timeout_s}")
