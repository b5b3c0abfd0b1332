"""The report for people: circumstances, figures, ratios."""

import statistics
from collections.abc import Mapping, Sequence

from ops.bench.best_peer import MAX_NOISE, noise
from ops.bench.closed_loop import ARRIVAL
from ops.bench.comparison import FIGURES, by_load, medians, server_cpu_ms_per_token
from ops.bench.document import Report
from ops.bench.plan import BenchPlan, Kind
from ops.bench.quality.tables import quality_sections, quality_summary
from ops.bench.stack.tables import stack_sections
from ops.bench.standing_tables import standing_sections
from ops.bench.summary import Spread, Summary

_COST_LABELS = ("noise", "prompt tokens", "of them cached", "generator CPU", "server CPU ms/token")
_MIN_WIDTH = 3
_FIGURE_NOTE = (
    "Medians of the rounds. Tokens are those of `usage`. TTFT is from the request to the first content, TPOT the median"
    " over the answers of the time per token after the first. Noise is the range of the rounds' tokens/s as a share of"
    f" their median; above {MAX_NOISE:.0%} a cell says little. Prompt tokens are those of `usage` too; a load in which"
    " they are not, within 2 %, as many as the model's tokenizer counts is left out. Generator CPU is the load"
    " generator's own share of one processor."
)
_RATIO_NOTE = (
    "Median of the ratios of each round, lowest and highest in brackets. Above 1 is better for tokens/s, below 1 for"
    " the times."
)


def markdown(report: Report) -> str:
    """The whole report; ends with a line feed."""
    parts = ["# InferFlux benchmark", _circumstances(report)]
    if not report.is_complete:
        parts.append("**Interrupted**: not all rounds were run.")
    parts += standing_sections(report, table)
    parts += quality_sections(report.quality, table)
    if report.results.rounds:
        parts += ["## Figures", _FIGURE_NOTE, _figures(report)]
    for name, peer in report.pairs:
        quality = f"Mean KL to FP32: {name} {report.quality.verdict(name)}, {peer} {report.quality.verdict(peer)}."
        parts += [f"## {name} / {peer}", f"{_RATIO_NOTE} {quality}", _ratios(report, name, peer)]
    parts += stack_sections(report.stack, table)
    missing = {
        **report.quality.missing,
        **report.skipped,
        **report.stack.skipped,
        **{f"quality of {name}": reason for name, reason in report.quality.failures.items()},
        **report.results.failures,
        **report.results.rejected,
        **report.stack.failures,
    }
    if missing:
        parts += ["## Not measured", "\n".join(f"- {name}: {reason}" for name, reason in missing.items())]
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table, its columns padded so that it also reads well as text; the first one to the left."""
    widths = [max(_MIN_WIDTH, *(len(row[column]) for row in (header, *rows))) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        padded[0] = cells[0].ljust(widths[0])
        return f"| {' | '.join(padded)} |"

    rule = [f"{'-' * (width - 1)}:" for width in widths]
    rule[0] = "-" * widths[0]
    return "\n".join([line(header), line(rule), *(line(row) for row in rows)])


def _circumstances(report: Report) -> str:
    host, plan, model = report.host, report.plan, report.model
    has = [name for name, is_there in host.features.items() if is_there]
    lacks = [name for name, is_there in host.features.items() if not is_there]
    lines = [
        f"taken at {report.taken_at.isoformat()}, load average before {host.load_average:.2f}",
        f"{host.processor}, {host.num_processors} processors; with {', '.join(has) or 'none'};"
        f" without {', '.join(lacks) or 'none'}",
        f"{host.system}, Python {host.python}, {host.available_bytes / 2**30:.1f} GiB of memory available",
        f"model {model.file}, {model.size_bytes / 1e6:.1f} MB, weights {model.weights}; quality"
        f" {quality_summary(report.quality)}"
        if model is not None
        else "no model",
    ]
    if report.arms:
        servers = ", or ".join(f"{part.sequences} sequences of {part.context} tokens" for part in report.parts)
        lines += [
            f"{plan.threads} threads, {servers}, {plan.max_tokens} new tokens, greedy, ignore_eos, completions"
            " streamed, raw prompts that all begin differently",
            *_load_lines(plan),
            "one request for each sequence before every turn to warm up",
            ARRIVAL,
            f"order {' '.join(report.arms)}, {plan.rounds} times, every server started anew; the load generator shares"
            " the processors with the server",
        ]
    lines += [f"{name}: {version}" for name, version in report.stack.versions.items()]
    return "\n".join([*(f"- {line}" for line in lines), *_arm_lines(report)])


def _load_lines(plan: BenchPlan) -> list[str]:
    texts = {
        Kind.SHARED: "all prompts begin with the same 300 words, which the server has not seen when the load starts",
        Kind.LONG: "prompts of about 1,500 tokens",
    }
    return [
        f"load {load.name}: {load.max_tokens} new tokens" + (f", {texts[load.kind]}" if load.kind in texts else "")
        for load in plan.loads
        if load.prefix
    ]


def _arm_lines(report: Report) -> list[str]:
    lines = []
    for name, told in report.arms.items():
        facts = " ".join(f"{key}={value}" for key, value in report.results.facts.get(name, {}).items())
        lines.append(f"- `{name}`: {told['version']}")
        lines += [f"  - `{told['settings']}`"]
        lines += [f"  - {text}" for text in (facts, told.get("note", "")) if text]
    return lines


def _figures(report: Report) -> str:
    header = ["arm", "load", "requests", *(figure.label for figure in FIGURES), *_COST_LABELS]
    rows = [
        _figure_row(arm, load, rounds) for arm, loads in report.results.rounds.items() for load, rounds in loads.items()
    ]
    notes = [
        f"{arm} at {load}: {num_short} answers had another number of tokens than asked for."
        for arm, loads in report.results.rounds.items()
        for load, rounds in loads.items()
        if (num_short := sum(summary.num_short for summary in rounds))
    ]
    notes += [f"**Warning**: the rounds of {name} differ by {share:.0%}." for name, share in report.noisy.items()]
    return "\n\n".join([table(header, rows), *notes])


def _figure_row(arm: str, load: str, rounds: Sequence[Summary]) -> list[str]:
    found = medians(rounds)
    generator = statistics.median(summary.generator_cpu for summary in rounds)
    return [
        arm,
        load,
        str(rounds[0].num_requests),
        *(_figure(found, figure.name) for figure in FIGURES),
        "-" if (share := noise(rounds)) is None else f"{share:.1%}",
        f"{statistics.fmean(summary.prompt_tokens for summary in rounds):.0f}",
        f"{statistics.fmean(summary.cached_tokens for summary in rounds):.0f}",
        f"{generator:.0%}",
        ", ".join(f"{name} {value:.2f}" for name, value in server_cpu_ms_per_token(rounds).items()) or "-",
    ]


def _ratios(report: Report, ours: str, peer: str) -> str:
    rounds = report.results.rounds
    found = by_load(rounds[ours], rounds[peer])
    header = ["", *found]
    rows = [[figure.label, *(_ratio(ratios, figure.name) for ratios in found.values())] for figure in FIGURES]
    return table(header, rows)


def _figure(found: Mapping[str, Spread], name: str) -> str:
    return _number(found[name].median) if name in found else "-"


def _ratio(found: Mapping[str, Spread], name: str) -> str:
    if name not in found:
        return "-"
    spread = found[name]
    return f"{spread.median:.2f} ({spread.low:.2f}–{spread.high:.2f})"


def _number(value: float) -> str:
    """Four digits or so, whatever the size."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
