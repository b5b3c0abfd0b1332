"""What the gate found, arm by arm."""

from dataclasses import dataclass, field
from typing import Any

from ops.bench.quality.divergence import Divergence

# 1.5 times what arithmetic in Q8_0 costs on the default model.
LIMIT = 0.008
NOT_ASKED = "not measured: --no-quality"
METHOD = (
    "KL(FP32 ‖ arm) in nats over teacher-forced tokens of a fixed text; FP32: the weights of the same file dequantised,"
    " computed by PyTorch's operations in FP32. A shape is how many rows a step has: one token of each of so many"
    " sequences, or a prompt's many; each is computed in its own way, and an arm passes when all of them do"
)


@dataclass(slots=True)
class ArmQuality:
    """`shapes` by name. `backend` is empty for a peer, of which only its most likely tokens are known."""

    description: str
    backend: str = ""
    shapes: dict[str, Divergence] = field(default_factory=dict)

    @property
    def worst(self) -> Divergence:
        return max(self.shapes.values(), key=lambda one: one.mean_kl)

    @property
    def passes(self) -> bool:
        return self.worst.mean_kl <= LIMIT


@dataclass(slots=True)
class QualityResults:
    """`missing` says why there is no figure of an arm, or of none, `failures` what broke while it was taken. `tokens`
    are those of the text."""

    tokens: int = 0
    reference: str = ""
    arms: dict[str, ArmQuality] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def failed_arms(self) -> list[str]:
        return [name for name, found in self.arms.items() if found.backend and not found.passes]

    def verdict(self, arm: str) -> str:
        """A few words for beside a ratio."""
        if arm not in self.arms:
            return "not measured"
        found = self.arms[arm]
        if found.worst.is_bound:
            return f"≥ {found.worst.mean_kl:.4f}"
        return f"{found.worst.mean_kl:.4f} {'passes' if found.passes else '**FAILS**'}"

    def document(self) -> dict[str, Any]:
        return {
            "method": METHOD,
            "limit": LIMIT,
            "tokens": self.tokens,
            "reference": self.reference,
            "arms": {
                name: {
                    "description": found.description,
                    "backend": found.backend,
                    "passes": None if found.worst.is_bound else found.passes,
                    "mean_kl": found.worst.mean_kl,
                    "shapes": {shape: one.model_dump() for shape, one in found.shapes.items()},
                }
                for name, found in self.arms.items()
            },
            "missing": self.missing,
            "failures": self.failures,
        }
