"""Figures: of one load, and the medians over the rounds."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ops.bench.closed_loop import LoopResult


@dataclass(frozen=True, slots=True)
class Summary:
    """What the load of that name gave. Times in milliseconds.

    `tpot_ms` is the median over the answers of the time per token after the first; None when no answer has two tokens.
    `num_short` counts answers with another number of tokens than asked for. `prompt_tokens` and `cached_tokens` (those
    that the server says it had computed before) are means over the answers, `expected_prompt_tokens` what the model's
    tokenizer makes of the same prompts, where it can be asked. `generator_cpu` is the load generator's
    share of one processor; `server_cpu_s` the processor seconds by process, where the system tells.
    """

    load: str
    num_requests: int
    num_short: int
    prompt_tokens: float
    cached_tokens: float
    output_tokens: int
    wall_s: float
    output_tokens_per_s: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    tpot_ms: float | None
    generator_cpu: float
    server_cpu_s: Mapping[str, float]
    expected_prompt_tokens: float | None = None

    @property
    def server_cpu_ms_per_token(self) -> dict[str, float]:
        return {name: 1000 * seconds / self.output_tokens for name, seconds in self.server_cpu_s.items()}


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the rounds."""

    median: float
    low: float
    high: float


def summarise(
    result: LoopResult, server_cpu_s: Mapping[str, float], expected_prompt_tokens: float | None = None
) -> Summary:
    """The figures of one load."""
    samples = result.samples
    output_tokens = sum(sample.completion_tokens for sample in samples)
    ttft_ms = [1000 * sample.ttft_s for sample in samples]
    tpot_ms = [1000 * sample.tpot_s for sample in samples if sample.tpot_s is not None]
    return Summary(
        load=result.load.name,
        num_requests=len(samples),
        num_short=sum(sample.completion_tokens != result.load.max_tokens for sample in samples),
        prompt_tokens=statistics.fmean(sample.prompt_tokens for sample in samples),
        cached_tokens=statistics.fmean(sample.cached_tokens for sample in samples),
        output_tokens=output_tokens,
        wall_s=result.wall_s,
        output_tokens_per_s=output_tokens / result.wall_s,
        ttft_p50_ms=percentile(ttft_ms, 50),
        ttft_p99_ms=percentile(ttft_ms, 99),
        tpot_ms=percentile(tpot_ms, 50) if tpot_ms else None,
        generator_cpu=result.generator_cpu_s / result.wall_s,
        server_cpu_s=dict(server_cpu_s),
        expected_prompt_tokens=expected_prompt_tokens,
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Interpolated between the two nearest ranks, as numpy does by default. `values` must not be empty."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def spread(values: Sequence[float]) -> Spread:
    """Median and range of a figure. `values` must not be empty."""
    return Spread(statistics.median(values), min(values), max(values))
