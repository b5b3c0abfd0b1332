"""The gate's findings for people."""

from collections.abc import Callable

from ops.bench.quality.divergence import Divergence
from ops.bench.quality.results import LIMIT, METHOD, QualityResults

Table = Callable[[list[str], list[list[str]]], str]
_PEERS_NOTE = (
    "Peers tell only their most likely tokens, so that their KL is at least this, without a verdict; a peer that is not"
    " here was not asked or does not tell."
)
_HEADER = ["arm", "shape", "tokens", "mean KL", "largest KL", "same top token", "gate"]


def quality_sections(results: QualityResults, table: Table) -> list[str]:
    """Heading, note and table; nothing when nothing was measured."""
    if not results.arms:
        return []
    rows = [_row(name, shape, one) for name, arm in results.arms.items() for shape, one in arm.shapes.items()]
    lines = [f"- FP32: {results.reference}"]
    lines += [f"- `{name}`: {arm.description}" for name, arm in results.arms.items()]
    return ["## Quality", f"{METHOD}. The gate is at {LIMIT:g}. {_PEERS_NOTE}", table(_HEADER, rows), "\n".join(lines)]


def quality_summary(results: QualityResults) -> str:
    """For the circumstances, in a line."""
    if not results.arms:
        return next(iter(results.missing.values()), "not measured")
    verdicts = ", ".join(f"{name} {results.verdict(name)}" for name in results.arms)
    return f"as mean KL to FP32 over {results.tokens:,} tokens, at most {LIMIT:g}: {verdicts}"


def _row(name: str, shape: str, found: Divergence) -> list[str]:
    sign = "≥ " if found.is_bound else ""
    return [
        name,
        shape,
        f"{found.tokens:,}",
        f"{sign}{found.mean_kl:.5f}",
        f"{sign}{found.largest_kl:.3f}",
        f"{found.top1:.1%}",
        "-" if found.is_bound else "passes" if found.mean_kl <= LIMIT else "**FAILS**",
    ]
