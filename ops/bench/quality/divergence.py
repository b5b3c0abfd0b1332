"""How far expectations are from the reference's."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

Floats = npt.NDArray[np.floating[Any]]


class Divergence(BaseModel):
    """Over `tokens` places of the text: KL(reference ‖ arm) in nats, its mean and its largest, and the share of places
    at which both expect the same token most. `is_bound`: of the arm only its most likely tokens are known, so the real
    KL is this or more."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: int
    mean_kl: float
    largest_kl: float
    top1: float
    is_bound: bool = False


def log_probs(logits: Floats) -> npt.NDArray[np.float32]:
    """Natural logarithms of probabilities, by row."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    normalised: npt.NDArray[np.floating[Any]] = shifted - np.log(
        np.exp(shifted).sum(axis=1, keepdims=True, dtype=np.float64)
    )
    return normalised.astype(np.float32)


@dataclass(slots=True)
class Tally:
    """Takes rows as they come."""

    tokens: int = 0
    kl_sum: float = 0.0
    kl_most: float = 0.0
    agreed: int = 0
    is_bound: bool = False

    def add(self, reference: Floats, other: Floats) -> None:
        """Logarithms of probabilities of both, a row for each place."""
        kl = (np.exp(reference) * (reference - other)).sum(axis=1, dtype=np.float64)
        self._note(kl, int((reference.argmax(axis=1) == other.argmax(axis=1)).sum()))

    def add_known(self, reference: Floats, ids: npt.NDArray[np.int64], known: Floats) -> None:
        """One place, of which the other's logarithms are known for some tokens: all the rest counts as one token."""
        p = np.exp(reference[ids].astype(np.float64))
        q = np.exp(known.astype(np.float64))
        rest_p, rest_q = max(1 - p.sum(), 1e-12), max(1 - q.sum(), 1e-12)
        kl = float((p * np.log(p / q)).sum() + rest_p * np.log(rest_p / rest_q))
        self.is_bound = True
        self._note(np.array([kl]), int(ids[known.argmax()] == reference.argmax()))

    def result(self) -> Divergence:
        return Divergence(
            tokens=self.tokens,
            mean_kl=self.kl_sum / max(1, self.tokens),
            largest_kl=self.kl_most,
            top1=self.agreed / max(1, self.tokens),
            is_bound=self.is_bound,
        )

    def _note(self, kl: npt.NDArray[np.float64], agreed: int) -> None:
        # Rounding makes an equal row a little less than nothing.
        kl = np.maximum(kl, 0.0)
        self.tokens += len(kl)
        self.kl_sum += float(kl.sum())
        self.kl_most = max(self.kl_most, float(kl.max()))
        self.agreed += agreed
