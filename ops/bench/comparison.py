"""Figures over the rounds, and ours against a peer's."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ops.bench.summary import Spread, Summary, spread


class Figure(NamedTuple):
    """One column. `read` gives None for a load in which it cannot be measured."""

    name: str
    label: str
    read: Callable[[Summary], float | None]


FIGURES = (
    Figure("output_tokens_per_s", "output tokens/s", lambda summary: summary.output_tokens_per_s),
    Figure("ttft_p50_ms", "TTFT p50 ms", lambda summary: summary.ttft_p50_ms),
    Figure("ttft_p99_ms", "TTFT p99 ms", lambda summary: summary.ttft_p99_ms),
    Figure("tpot_ms", "TPOT ms", lambda summary: summary.tpot_ms),
)


def medians(rounds: Sequence[Summary]) -> dict[str, Spread]:
    """Every figure over the rounds, by name; one that no round could measure is left out."""
    values = {figure.name: _values(figure, rounds) for figure in FIGURES}
    return {name: spread(given) for name, given in values.items() if given}


def server_cpu_ms_per_token(rounds: Sequence[Summary]) -> dict[str, float]:
    """Processor time of each process for an output token, the median over the rounds."""
    each = [summary.server_cpu_ms_per_token for summary in rounds]
    names = [name for name in each[0] if all(name in one for one in each)]
    return {name: spread([one[name] for one in each]).median for name in names}


def ratios(ours: Sequence[Summary], theirs: Sequence[Summary]) -> dict[str, Spread]:
    """Ours by theirs for every figure: the median of the ratios of each round, whose turns are neighbours in time.

    A ratio of medians would mix a slow minute of the machine into one side only. A round that one side did not finish
    does not count.
    """
    found: dict[str, list[float]] = {}
    for mine, yours in zip(ours, theirs, strict=False):
        for figure in FIGURES:
            above, below = figure.read(mine), figure.read(yours)
            if above is not None and below:
                found.setdefault(figure.name, []).append(above / below)
    return {name: spread(values) for name, values in found.items()}


def by_load(
    ours: Mapping[str, Sequence[Summary]], theirs: Mapping[str, Sequence[Summary]]
) -> dict[str, dict[str, Spread]]:
    """The ratios for every load that both were measured with."""
    return {load: ratios(rounds, theirs[load]) for load, rounds in ours.items() if load in theirs}


def _values(figure: Figure, rounds: Sequence[Summary]) -> list[float]:
    return [value for summary in rounds if (value := figure.read(summary)) is not None]
