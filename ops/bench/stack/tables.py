"""The cells about the stack itself, for people."""

from collections.abc import Callable

from ops.bench.stack.litellm_proxy import NAME
from ops.bench.stack.open_loop import ARRIVAL
from ops.bench.stack.overhead import EVERY_MS, NUM_TOKENS, OURS
from ops.bench.stack.results import (
    GOAL_P50_MS,
    GOAL_P99_MS,
    GOAL_PER_S,
    GOAL_TOKENS_PER_CORE_S,
    Backlog,
    IdleStreams,
    StackResults,
)

Table = Callable[[list[str], list[list[str]]], str]
_MIB = 2**20


def stack_sections(results: StackResults, table: Table) -> list[str]:
    """Headings, notes and tables in turn."""
    parts: list[str] = []
    if results.overhead:
        parts += ["## Latency added to the first token", _OVERHEAD_NOTE, _overhead(results, table)]
    if results.throughput:
        parts += ["## Streamed tokens for a second of a processor", _THROUGHPUT_NOTE, _throughput(results, table)]
    if results.idle is not None:
        parts += ["## Open streams that wait", _idle(results.idle)]
    if results.backlog is not None:
        parts += ["## A long queue", *_backlog(results.backlog, table)]
    return parts


_OVERHEAD_NOTE = (
    f"Answers of {NUM_TOKENS} tokens, one every {EVERY_MS:g} ms; {ARRIVAL}. Times in milliseconds. `{OURS}`: edge,"
    " broker and a worker with the echo runner, against that worker's engine alone, in the load generator's process."
    f" `{NAME}`: the proxy in front of an upstream that costs nothing, against that upstream. Goal at {GOAL_PER_S}"
    f" requests/s: {GOAL_P50_MS:g} ms added at the median, {GOAL_P99_MS:g} ms at the 99th percentile. CPU is of the"
    " server's processes for a request."
)
_THROUGHPUT_NOTE = (
    "Many streams at once of a model as fast as it goes. Tokens are those of `usage`; events are those with content,"
    f" which hold more tokens than one where a reader is behind. Goal of the edge: {GOAL_TOKENS_PER_CORE_S:,} tokens."
)


def _overhead(results: StackResults, table: Table) -> str:
    header = ["server", "requests/s", "requests", "added p50", "added p99", "through p50", "p99", "direct p50", "p99"]
    rows = []
    for each in results.overhead:
        quantiles = (each.added, each.through, each.direct)
        figures = [f"{value:.1f}" for found in quantiles for value in (found.p50_ms, found.p99_ms)]
        cpu = ", ".join(f"{name} {1000 * used / each.num_requests:.1f}" for name, used in each.cpu_s.items())
        rows.append([each.server, f"{each.per_s:g}", str(each.num_requests), *figures, cpu or "-"])
    return table([*header, "CPU ms"], rows)


def _throughput(results: StackResults, table: Table) -> str:
    header = ["server", "streams", "tokens", "tokens / core s", "tokens / s", "tokens / event", "others' CPU s"]
    rows = [
        [
            each.server,
            str(each.streams),
            f"{each.num_tokens:,}",
            f"{each.tokens_per_core_s:,.0f}",
            f"{each.tokens_per_s:,.0f}",
            f"{each.num_tokens / max(each.num_events, 1):.2f}",
            ", ".join(f"{name} {used:.1f}" for name, used in each.others_cpu_s.items()) or "-",
        ]
        for each in results.throughput
    ]
    return table(header, rows)


def _idle(idle: IdleStreams) -> str:
    return (
        f"{idle.streams:,} streams, its next token seconds away each: {idle.bytes_per_stream / 1024:.1f} KiB of the"
        f" edge for each ({idle.before_bytes / _MIB:.1f} MiB without any, {idle.open_bytes / _MIB:.1f} MiB with all);"
        f" the broker {idle.broker_before_bytes / _MIB:.1f} and {idle.broker_open_bytes / _MIB:.1f} MiB."
    )


def _backlog(found: Backlog, table: Table) -> list[str]:
    text = (
        f"{found.num_requests:,} requests of class batch, published by one process with the worker held:"
        f" {found.published_per_s:,.0f} a second, {found.broker_disk_bytes / _MIB:.1f} MiB on disk, the broker's memory"
        f" {found.broker_before_bytes / _MIB:.1f} MiB before and {found.broker_full_bytes / _MIB:.1f} MiB with all of"
        f" them. Then one worker with the echo runner: {found.drained_per_s:,.0f} requests a second over the first"
        f" {found.num_drained:,}, with at least {found.num_left_meanwhile:,} queued while first tokens of class normal"
        " were taken."
    )
    rows = [
        [name, f"{times.p50_ms:.1f}", f"{times.p99_ms:.1f}"]
        for name, times in (("no queue", found.before), ("while the queue is worked off", found.meanwhile))
    ]
    return [text, table(["first token of class normal, 5 requests/s", "p50 ms", "p99 ms"], rows)]
