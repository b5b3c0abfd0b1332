"""The record of a run: everything that was measured and everything it depends on, as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ops.bench.arms import OURS, PEERS
from ops.bench.best_peer import MAX_NOISE, Standing, noise, standing
from ops.bench.closed_loop import ARRIVAL
from ops.bench.comparison import by_load, medians, server_cpu_ms_per_token
from ops.bench.host import Host
from ops.bench.plan import BenchPlan
from ops.bench.quality.results import QualityResults
from ops.bench.stack.results import StackResults
from ops.bench.summary import Summary
from ops.bench.turns import Results
from ops.bench.weights import weights_format

FORMAT = 4


@dataclass(frozen=True, slots=True)
class Model:
    """The file that every arm serves. `weights` is the number format it was written in."""

    file: str
    size_bytes: int
    weights: str


@dataclass(slots=True)
class Report:
    """A run and its circumstances, filled while it goes. `parts` are what of the plan each server was started for.
    `arms` describes each measured arm, `skipped` says why another was not. Not complete is one that was interrupted.
    """

    taken_at: datetime
    host: Host
    plan: BenchPlan
    parts: tuple[BenchPlan, ...]
    model: Model | None
    arms: dict[str, Mapping[str, str]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    results: Results = field(default_factory=Results)
    stack: StackResults = field(default_factory=StackResults)
    quality: QualityResults = field(default_factory=QualityResults)
    is_complete: bool = False

    def add_arm(self, name: str, told: Mapping[str, str]) -> None:
        """How a server is started; twice for one that is started with other settings for long texts."""
        before = self.arms.get(name, told)
        settings = dict.fromkeys((before["settings"], told["settings"]))
        self.arms[name] = {**told, "settings": "; for long texts: ".join(settings)}

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Each of our arms that was measured, with each peer that was."""
        return [(name, peer) for name in self.results.rounds if name in OURS for peer in self.peers]

    @property
    def peers(self) -> list[str]:
        """Those that were measured."""
        return [name for name in self.results.rounds if name in PEERS]

    @property
    def standings(self) -> list[Standing]:
        """Each of our arms against the best peer of each cell."""
        rounds = self.results.rounds
        found = [standing(name, self.peers, rounds) for name in rounds if name in OURS]
        return [each for each in found if each is not None]

    @property
    def noisy(self) -> dict[str, float]:
        """Loads whose rounds differ too much, by arm and load."""
        return {
            f"{arm} at {load}": share
            for arm, loads in self.results.rounds.items()
            for load, rounds in loads.items()
            if (share := noise(rounds)) is not None and share > MAX_NOISE
        }

    @property
    def has_failed(self) -> bool:
        return bool(
            self.results.failures
            or self.results.rejected
            or self.stack.failures
            or self.quality.failures
            or self.quality.failed_arms()
        )


def describe_model(path: Path | None) -> Model | None:
    if path is None:
        return None
    return Model(path.name, path.stat().st_size, weights_format(path))


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def document(report: Report) -> dict[str, Any]:
    """JSON values only. Loads are keys, by name."""
    plan, rounds = report.plan, report.results.rounds
    return {
        "format": FORMAT,
        "taken_at": report.taken_at.isoformat(),
        "complete": report.is_complete,
        "host": asdict(report.host),
        "model": asdict(report.model) if report.model is not None else None,
        "quality": report.quality.document(),
        "settings": {
            "threads": plan.threads,
            "servers": [{"sequences": part.sequences, "context": part.context} for part in report.parts],
            "max_tokens": plan.max_tokens,
            "rounds": plan.rounds,
            "order": list(report.arms),
            "loads": {load.name: asdict(load) for load in plan.loads},
            "warm_up": [asdict(part.warm_up) for part in report.parts],
            "sampling": "greedy, ignore_eos",
            "arrival": ARRIVAL,
        },
        "arms": {
            name: {**told, "facts": dict(report.results.facts.get(name, {}))} for name, told in report.arms.items()
        },
        "stack": _stack(report.stack),
        "skipped": report.skipped,
        "failures": report.results.failures,
        "rejected": report.results.rejected,
        "best_peer": {each.arm: _standing(each) for each in report.standings},
        "medians": {arm: {load: _medians(each) for load, each in loads.items()} for arm, loads in rounds.items()},
        "ratios": {f"{name} / {peer}": _ratios(report, name, peer) for name, peer in report.pairs},
        "rounds": {
            arm: {load: [asdict(summary) for summary in each] for load, each in loads.items()}
            for arm, loads in rounds.items()
        },
    }


def _medians(rounds: Sequence[Summary]) -> dict[str, Any]:
    figures = {name: asdict(spread) for name, spread in medians(rounds).items()}
    return {**figures, "noise": noise(rounds), "server_cpu_ms_per_token": server_cpu_ms_per_token(rounds)}


def _standing(found: Standing) -> dict[str, Any]:
    return {
        "cells": [{**asdict(cell), "is_behind": cell.is_behind} for cell in found.cells],
        "num_cells": len(found.cells),
        "num_ahead": found.num_ahead,
        "geometric_mean": found.geometric_mean,
    }


def _ratios(report: Report, ours: str, peer: str) -> dict[str, Any]:
    rounds = report.results.rounds
    return {
        load: {name: asdict(spread) for name, spread in found.items()}
        for load, found in by_load(rounds[ours], rounds[peer]).items()
    }


def _stack(found: StackResults) -> dict[str, Any]:
    """With what follows from the figures beside them."""
    return {
        **asdict(found),
        "overhead": [{**asdict(each), "added": asdict(each.added)} for each in found.overhead],
        "throughput": [
            {**asdict(each), "tokens_per_s": each.tokens_per_s, "tokens_per_core_s": each.tokens_per_core_s}
            for each in found.throughput
        ],
        "idle": found.idle and {**asdict(found.idle), "bytes_per_stream": found.idle.bytes_per_stream},
        "backlog": found.backlog
        and {
            **asdict(found.backlog),
            "published_per_s": found.backlog.published_per_s,
            "drained_per_s": found.backlog.drained_per_s,
        },
    }
