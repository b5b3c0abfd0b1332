"""The record of a run: everything that was measured and everything it depends on, as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ops.bench.arms import OURS, PEERS
from ops.bench.closed_loop import ARRIVAL
from ops.bench.comparison import by_concurrency, medians, server_cpu_ms_per_token
from ops.bench.host import Host
from ops.bench.plan import BenchPlan
from ops.bench.summary import Summary
from ops.bench.turns import Results
from ops.bench.weights import weights_format

FORMAT = 1
QUALITY = "not measured: the tables compare speed alone"


@dataclass(frozen=True, slots=True)
class Model:
    """The file that every arm serves. `weights` is the number format it was written in."""

    file: str
    size_bytes: int
    weights: str


@dataclass(frozen=True, slots=True)
class Report:
    """A run and its circumstances. `arms` describes each measured arm, `skipped` says why another was not. Not complete
    is one that was interrupted."""

    taken_at: datetime
    host: Host
    plan: BenchPlan
    model: Model | None
    arms: Mapping[str, Mapping[str, str]]
    skipped: Mapping[str, str]
    results: Results
    is_complete: bool

    @property
    def peers(self) -> list[str]:
        """Measured arms that ours is compared with."""
        measured = self.results.rounds
        return [name for name in measured if name in PEERS] if OURS in measured else []


def describe_model(path: Path | None) -> Model | None:
    if path is None:
        return None
    return Model(path.name, path.stat().st_size, weights_format(path))


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def document(report: Report) -> dict[str, Any]:
    """JSON values only. Concurrencies are keys, so they are strings."""
    plan, rounds = report.plan, report.results.rounds
    return {
        "format": FORMAT,
        "taken_at": report.taken_at.isoformat(),
        "complete": report.is_complete,
        "host": asdict(report.host),
        "model": asdict(report.model) if report.model is not None else None,
        "quality": QUALITY,
        "settings": {
            "threads": plan.threads,
            "sequences": plan.sequences,
            "context": plan.context,
            "max_tokens": plan.max_tokens,
            "rounds": plan.rounds,
            "order": list(report.arms),
            "concurrency": list(plan.concurrency),
            "warm_up": asdict(plan.warm_up),
            "sampling": "greedy, ignore_eos",
            "arrival": ARRIVAL,
        },
        "arms": {
            name: {**told, "facts": dict(report.results.facts.get(name, {}))} for name, told in report.arms.items()
        },
        "skipped": dict(report.skipped),
        "failures": report.results.failures,
        "medians": {
            arm: {str(count): _medians(each) for count, each in loads.items()} for arm, loads in rounds.items()
        },
        "ratios": {f"{OURS} / {peer}": _ratios(report, peer) for peer in report.peers},
        "rounds": {
            arm: {str(count): [asdict(summary) for summary in each] for count, each in loads.items()}
            for arm, loads in rounds.items()
        },
    }


def _medians(rounds: Sequence[Summary]) -> dict[str, Any]:
    figures = {name: asdict(spread) for name, spread in medians(rounds).items()}
    return {**figures, "server_cpu_ms_per_token": server_cpu_ms_per_token(rounds)}


def _ratios(report: Report, peer: str) -> dict[str, Any]:
    rounds = report.results.rounds
    return {
        str(count): {name: asdict(spread) for name, spread in found.items()}
        for count, found in by_concurrency(rounds[OURS], rounds[peer]).items()
    }
