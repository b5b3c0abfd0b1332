"""The books of the KV, checked against each other and the runner."""

from collections import Counter
from collections.abc import Iterable

from workers.kv.entry import Entry
from workers.kv.prefix_cache import PrefixCache
from workers.runners.base import ModelRunner


def audit(cache: PrefixCache, runner: ModelRunner) -> list[str]:
    """What is wrong, one line each; nothing when every handle has one owner and all counts agree. Costs a comparison
    for every cached token: for idle times and tests.
    """
    live = list(cache._live.values())
    cached = [entry for tree in cache._trees.values() for entry in tree if entry.is_cached]
    return [
        *_handle_faults(cache, runner, live, cached),
        *_tree_faults(cache, live, cached),
        *_lock_faults(cache, live, cached),
        *_span_faults(cache, live, cached),
    ]


def _handle_faults(cache: PrefixCache, runner: ModelRunner, live: list[Entry], cached: list[Entry]) -> Iterable[str]:
    held = [entry for entry in (*live, *cached) if entry.handle is not None]
    owners = Counter(entry.handle for entry in held)
    yield from (f"{handle} has {count} owners" for handle, count in owners.items() if count > 1)
    if len(held) != cache._num_handles:
        yield f"{len(held)} handles are owned and {cache._num_handles} were counted"
    for entry in held:
        assert entry.handle is not None
        if runner.length(entry.handle) != entry.num_tokens:
            yield f"{entry.handle} has {runner.length(entry.handle)} tokens and not {entry.num_tokens}"
    for sequence, entry in cache._live.items():
        if entry.sequence is not sequence or entry.handle != sequence.handle:
            yield f"request {sequence.request_id} and its KV do not know each other"


def _tree_faults(cache: PrefixCache, live: list[Entry], cached: list[Entry]) -> Iterable[str]:
    num_known = sum(map(len, cache._trees.values()))
    if set(cached) != set(cache._cached) or num_known != len(cached) + (len(live) if cache._config.is_cached else 0):
        yield f"{num_known} entries in trees, {len(cache._cached)} cached, {len(live)} live"
    for scope, tree in cache._trees.items():
        if not tree:
            yield f"scope {scope!r} is empty"
        for entry in tree:
            if entry.scope != scope or tree.sequence(entry) != entry.tokens:
                yield f"{entry.handle} does not lie where its tokens are"


def _lock_faults(cache: PrefixCache, live: list[Entry], cached: list[Entry]) -> Iterable[str]:
    waiting = [entry for entry in live if entry.handle is None]
    locks = Counter(entry.source for entry in waiting)
    if len(waiting) != cache.num_waiting:
        yield f"{len(waiting)} wait and {cache.num_waiting} were counted"
    if None in locks:
        yield "a live entry has neither a handle nor a source"
    yield from (
        f"{entry.handle} has {entry.num_locks} locks for {locks[entry]} that wait"
        for entry in (*live, *cached)
        if entry.num_locks != locks[entry]
    )
    for entry in waiting:
        source = entry.source
        while source is not None and source is not entry:
            source = source.source
        if source is entry:
            yield "entries wait for each other in a circle"


def _span_faults(cache: PrefixCache, live: list[Entry], cached: list[Entry]) -> Iterable[str]:
    ledger, entries = cache._ledger, (*live, *cached)
    taken = ledger.size_of((entry.span, cache._budget) for entry in entries)
    if ledger.total != taken:
        yield f"{taken} tokens are taken and {ledger.total} were counted"
    if taken > cache._budget:
        yield f"{taken} tokens are taken of {cache._budget}"
    for entry in entries:
        reserved = len(entry.tokens) if entry.sequence is None else entry.sequence.num_reserved
        if entry.span.end != reserved:
            yield f"{entry.handle} has room for {entry.span.end} tokens and not {reserved}"
