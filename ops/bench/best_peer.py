"""Every cell of ours against whichever peer is best in it on the day."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ops.bench.comparison import FIGURES, Figure, medians, ratios
from ops.bench.summary import Spread, Summary

# A cell whose rounds differ by more than this share of their median says little.
MAX_NOISE = 0.10
# What a cell has: its figure, and whether more is better.
_TOKENS = "output_tokens_per_s"
_COMPARED = (_TOKENS, "ttft_p50_ms")

Rounds = Mapping[str, Mapping[str, Sequence[Summary]]]


@dataclass(frozen=True, slots=True)
class CellVerdict:
    """One figure of one load. `ratio` is how many times as good as the best peer ours is, the median of the rounds:
    above 1 is better, for times as well. `noise` is the larger of both sides'."""

    load: str
    figure: str
    label: str
    best_peer: str
    peer_value: float
    our_value: float
    ratio: Spread
    noise: float

    @property
    def is_behind(self) -> bool:
        return self.ratio.median < 1


@dataclass(frozen=True, slots=True)
class Standing:
    """All cells of one of our arms."""

    arm: str
    cells: tuple[CellVerdict, ...]

    @property
    def num_ahead(self) -> int:
        return sum(not cell.is_behind for cell in self.cells)

    @property
    def geometric_mean(self) -> float:
        return math.exp(math.fsum(math.log(cell.ratio.median) for cell in self.cells) / len(self.cells))


def standing(arm: str, peers: Collection[str], rounds: Rounds) -> Standing | None:
    """None when no peer was measured with any of its loads."""
    cells = [
        verdict
        for load in rounds[arm]
        for figure in FIGURES
        if figure.name in _COMPARED and (verdict := _verdict(arm, peers, rounds, load, figure)) is not None
    ]
    return Standing(arm, tuple(cells)) if cells else None


def noise(rounds: Sequence[Summary], name: str = _TOKENS) -> float | None:
    """The range of a figure over the rounds as a share of its median; None for one round, which does not tell."""
    found = medians(rounds).get(name)
    if found is None or len(rounds) < 2 or not found.median:
        return None
    return (found.high - found.low) / found.median


def _verdict(arm: str, peers: Collection[str], rounds: Rounds, load: str, figure: Figure) -> CellVerdict | None:
    values = {
        name: found[figure.name].median
        for name in (arm, *peers)
        if load in rounds.get(name, {}) and figure.name in (found := medians(rounds[name][load]))
    }
    theirs = {name: values[name] for name in peers if name in values}
    if arm not in values or not theirs:
        return None
    best = (max if figure.name == _TOKENS else min)(theirs, key=lambda name: theirs[name])
    sides = (
        (rounds[arm][load], rounds[best][load]) if figure.name == _TOKENS else (rounds[best][load], rounds[arm][load])
    )
    ratio = ratios(*sides).get(figure.name)
    if ratio is None:
        return None
    shares = [share for side in sides if (share := noise(side, figure.name)) is not None]
    return CellVerdict(
        load, figure.name, figure.label, best, theirs[best], values[arm], ratio, max(shares, default=0.0)
    )
