"""Our arms against the best peer of each cell, for people."""

from collections.abc import Callable

from ops.bench.best_peer import MAX_NOISE, CellVerdict, Standing
from ops.bench.document import Report

Table = Callable[[list[str], list[list[str]]], str]
_HEADER = ["arm", "load", "figure", "ours", "best peer", "its figure", "times as good", "noise", "mean KL to FP32", ""]
_NOTE = (
    "How to read it: a cell is one figure of one load, against whichever peer was best in it in this run. `times as"
    " good` is ours by theirs for tokens/s, and theirs by ours for the time to the first token, so that above 1 is"
    " better everywhere: the median of the ratios of each round, lowest and highest in brackets. **BEHIND** marks a"
    " cell below 1. `noise` is the range of the rounds by their median, of the noisier side; above"
    f" {MAX_NOISE:.0%}, marked (!), a difference of that size means nothing. A ratio counts only where the arm passes"
    " the quality gate beside it."
)


def standing_sections(report: Report, table: Table) -> list[str]:
    """Heading, note, table and a line for each arm; nothing when there is nobody to compare with."""
    standings = report.standings
    if not standings:
        return []
    rows = [_row(report, each, cell) for each in standings for cell in each.cells]
    lines = [f"- {_summary(report, each)}" for each in standings]
    return ["## Against the best peer", _NOTE, table(_HEADER, rows), "\n".join(lines)]


def _row(report: Report, standing: Standing, cell: CellVerdict) -> list[str]:
    ratio = cell.ratio
    return [
        standing.arm,
        cell.load,
        cell.label,
        f"{cell.our_value:,.1f}",
        cell.best_peer,
        f"{cell.peer_value:,.1f}",
        f"{ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f})",
        f"{cell.noise:.0%}" + (" (!)" if cell.noise > MAX_NOISE else "") if report.plan.rounds > 1 else "-",
        report.quality.verdict(standing.arm),
        "**BEHIND**" if cell.is_behind else "",
    ]


def _summary(report: Report, standing: Standing) -> str:
    behind = [f"{cell.load} {cell.label} ({cell.best_peer})" for cell in standing.cells if cell.is_behind]
    return (
        f"`{standing.arm}`: {standing.num_ahead} of {len(standing.cells)} cells ≥ 1.0, geometric mean"
        f" {standing.geometric_mean:.2f}, mean KL {report.quality.verdict(standing.arm)}"
        + (f"; behind in {', '.join(behind)}" if behind else "")
    )
