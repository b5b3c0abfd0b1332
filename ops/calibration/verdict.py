"""What a calibration has found, as it is remembered and told."""

from pydantic import BaseModel, ConfigDict, Field

from workers.runners.waiting import MAX_WAITED


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Figures(_Document):
    """Tokens a second of one backend: `decode` with `sequences` at once, `decode_alone` with one, `prefill` of a
    prompt. `memory_bytes` is what its process held in memory, `waited` the share of its time that it waited for
    processors which others had.
    """

    sequences: int = Field(ge=1)
    decode: float = Field(gt=0, allow_inf_nan=False)
    decode_alone: float = Field(gt=0, allow_inf_nan=False)
    prefill: float = Field(gt=0, allow_inf_nan=False)
    memory_bytes: int = Field(ge=0)
    waited: float = Field(default=0.0, ge=0, le=1)

    @property
    def score(self) -> float:
        """Answer tokens a second of a load that reads as many prompt tokens as it writes."""
        return 1 / (1 / self.decode + 1 / self.prefill)

    @property
    def is_disturbed(self) -> bool:
        return self.waited > MAX_WAITED


class Outcome(_Document):
    """Of one backend: figures, or why there are none."""

    backend: str
    figures: Figures | None = None
    reason: str = ""

    def told(self) -> str:
        if self.figures is None:
            return f"{self.backend}: {self.reason}"
        return f"{self.backend} {self.figures.decode:.0f} tok/s (prefill {self.figures.prefill:.0f})"


class Verdict(_Document):
    """`backend` is the one to take, None when none could be measured. `sequences` is how many at once it is about.

    `is_final`: it would come out the same again; else the next start measures once more.
    """

    backend: str | None
    sequences: int
    outcomes: tuple[Outcome, ...] = Field(strict=False)
    is_final: bool = True

    def told(self) -> str:
        """In one line, the fastest first."""
        ranked = sorted(self.outcomes, key=lambda outcome: -(outcome.figures.score if outcome.figures else 0.0))
        busy = "; the machine was busy" if self.was_disturbed else ""
        return f"at {self.sequences} sequences {', '.join(outcome.told() for outcome in ranked)}{busy}"

    @property
    def was_disturbed(self) -> bool:
        return any(outcome.figures is not None and outcome.figures.is_disturbed for outcome in self.outcomes)
