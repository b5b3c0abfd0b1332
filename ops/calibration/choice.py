"""From figures to the backend to take. Looks at nothing but them."""

from collections.abc import Sequence

from ops.calibration.verdict import Outcome, Verdict

# Two runs on one machine differ by as much.
TIE = 0.05


def decide(outcomes: Sequence[Outcome], sequences: int, *, is_final: bool = True) -> Verdict:
    """The highest score; among those within TIE of it the least memory; then the one that comes first.

    Of a busy machine, and where nothing could be measured, the verdict is not final.
    """
    measured = [(outcome, outcome.figures) for outcome in outcomes if outcome.figures is not None]
    best = max((figures.score for _, figures in measured), default=0.0)
    equals = [(outcome, figures) for outcome, figures in measured if figures.score >= best * (1 - TIE)]
    least = min(equals, key=lambda pair: pair[1].memory_bytes, default=None)
    return Verdict(
        backend=None if least is None else least[0].backend,
        sequences=sequences,
        outcomes=tuple(outcomes),
        is_final=is_final and least is not None and not any(figures.is_disturbed for _, figures in measured),
    )
