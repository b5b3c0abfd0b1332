"""Results made up for tests of tables and ratios."""

from datetime import UTC, datetime
from pathlib import Path

from ops.bench.answer import Sample
from ops.bench.closed_loop import LoopResult
from ops.bench.document import Model, Report
from ops.bench.host import Host
from ops.bench.plan import BenchPlan, Load, PeerPaths
from ops.bench.summary import Summary
from ops.bench.turns import Results

HOST = Host("Some CPU", 2, {"avx2": True, "avx512_bf16": False, "amx_tile": False}, 8 * 2**30, 0.1, "Linux 6", "3.11")


def plan(
    arms: tuple[str, ...] = ("ours", "llama-server"),
    *,
    model: Path | None = None,
    rounds: int = 2,
    shared: int = 0,
    peers: PeerPaths | None = None,
) -> BenchPlan:
    return BenchPlan(
        model,
        arms,
        (1, 8),
        shared,
        rounds,
        requests=4,
        max_tokens=8,
        threads=2,
        context=256,
        peers=peers or PeerPaths(),
    )


def sample(
    ttft_s: float = 0.5, tokens: int = 5, tpot_s: float = 0.25, *, sent_at: float = 100.0, prompt_tokens: int = 51
) -> Sample:
    first = sent_at + ttft_s
    last = first + tpot_s * (tokens - 1)
    return Sample(sent_at, first, last, last, prompt_tokens, tokens)


def loop_result(*samples: Sample, wall_s: float = 2.0, max_tokens: int = 5) -> LoopResult:
    return LoopResult(Load(1, len(samples), max_tokens), samples, wall_s, generator_cpu_s=0.1)


def summary(tokens_per_s: float, *, load: str = "c=1", ttft_ms: float = 100.0, tpot_ms: float | None = 5.0) -> Summary:
    return Summary(
        load=load,
        num_requests=4,
        num_short=0,
        prompt_tokens=51.0,
        cached_tokens=12.0,
        output_tokens=32,
        wall_s=32 / tokens_per_s,
        output_tokens_per_s=tokens_per_s,
        ttft_p50_ms=ttft_ms,
        ttft_p99_ms=2 * ttft_ms,
        tpot_ms=tpot_ms,
        generator_cpu=0.02,
        server_cpu_s={"server": 0.064},
    )


def report(results: Results, *, skipped: dict[str, str] | None = None, is_complete: bool = True) -> Report:
    return Report(
        taken_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        host=HOST,
        plan=plan(),
        parts=(plan(),),
        model=Model("small.gguf", 98_400_000, "Q4_1"),
        arms={name: {"version": f"{name} 1.0", "settings": "as it comes"} for name in results.rounds},
        skipped=skipped or {},
        results=results,
        is_complete=is_complete,
    )
