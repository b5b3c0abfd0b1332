"""Who has which KV: handles for sequences that run, and what is kept of those that have ended."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum

from workers.engine.sequence import Sequence
from workers.kv.config import CacheScope, Eviction, KvConfig
from workers.kv.entry import Entry
from workers.kv.eviction import Clock, EvictionPolicy, Lru
from workers.kv.parking import Parking
from workers.kv.radix_tree import RadixTree
from workers.kv.source import Source, SourceFinder
from workers.kv.spans import SpanLedger
from workers.runners.base import Capabilities, ForkKind, Handle, ModelRunner


class Grant(StrEnum):
    """`READY`: the sequence has its handle, and `num_computed` says how much of it is there already. `WAIT`: its KV is
    reserved, and it gets its handle from `settle` once another sequence has computed their common beginning. `NONE`:
    there is no room now.
    """

    READY = "ready"
    WAIT = "wait"
    NONE = "none"


@dataclass(slots=True)
class CacheCounters:
    """What only grows. One look-up each time a sequence gets its handle. Evictions are of what others needed the room
    of.
    """

    hits: int = 0
    misses: int = 0
    matched_tokens: int = 0
    evictions: int = 0


class PrefixCache:
    """Owns the runner's handles. Used by the engine thread alone.

    Every sequence with KV has all that it can ever need reserved; cached KV takes what is left, and goes as soon as
    somebody needs its room or its handle. So cached KV never keeps a sequence waiting. A sequence that gave way goes on
    from what is `parked` of it, unless more than that is here.
    """

    def __init__(self, runner: ModelRunner, capabilities: Capabilities, config: KvConfig, parking: Parking) -> None:
        self._runner = runner
        self._parking = parking
        self._config = config
        self._max_handles = capabilities.max_handles
        self._max_cached_tokens = capabilities.max_cached_tokens
        self._budget = capabilities.kv_token_budget
        self._fork = capabilities.fork
        self._can_cut = capabilities.can_truncate
        self._finder = SourceFinder(capabilities)
        self._ledger = SpanLedger(
            is_sharing=capabilities.fork is ForkKind.SHARED, page_size=capabilities.page_size or 1
        )
        self._trees: dict[str, RadixTree[Entry]] = {}
        self._live: dict[Sequence, Entry] = {}
        self._cached: EvictionPolicy = Clock() if config.eviction is Eviction.CLOCK else Lru()
        self._num_handles = 0
        self.num_waiting = 0
        self.counters = CacheCounters()

    @property
    def num_reserved(self) -> int:
        """Tokens set aside for sequences, those that several share once."""
        return self._ledger.size_of((entry.span, self._budget) for entry in list(self._live.values()))

    @property
    def num_cached_handles(self) -> int:
        return len(self._cached)

    @property
    def num_cached(self) -> int:
        """Tokens held for nobody: what eviction would free."""
        return self._ledger.total - self.num_reserved

    def acquire(self, sequence: Sequence) -> Grant:
        """Reserve KV for a sequence that has none, and give it a handle unless it is to wait for one.

        Evicts as much as that takes, and nothing when it does not suffice.
        """
        source = self._find(sequence)
        if source is not None and (num_parked := self._parking.num_tokens(sequence)):
            source = None if source.must_wait or source.num_tokens <= num_parked else source
        if not self._can_fit(sequence, source):
            return Grant.NONE
        if source is None or not source.must_wait:
            return self._start(sequence, source)
        entry = self._enter(sequence, source)
        entry.source, entry.num_wanted = source.entry, source.num_tokens
        source.entry.num_locks += 1
        self.num_waiting += 1
        self._make_room(needs_handle=False)
        return Grant.WAIT

    def can_fit(self, sequence: Sequence, without: Collection[Sequence]) -> bool:
        """Whether there will be room for a sequence when `without` have retired and all that can go is gone."""
        source = self._find(sequence)
        if source is not None and source.entry.sequence in without:
            source = None
        return self._can_fit(sequence, source, without)

    def held(self) -> dict[Handle, int]:
        """Every handle that is not free, and how many tokens it should hold."""
        entries = (*self._live.values(), *self._cached)
        return {entry.handle: entry.num_tokens for entry in entries if entry.handle is not None}

    def settle(self, sequence: Sequence) -> Grant:
        """Look again after a sequence that waits. `NONE`: what it waited for does not come; nothing is reserved for it
        any more, and it is to `acquire` anew.
        """
        entry = self._live[sequence]
        source = entry.source
        assert source is not None
        if source.num_tokens < entry.num_wanted:
            if source.sequence is not None:
                return Grant.WAIT
        else:
            self._unlock(entry)
            if self._obtain(entry, Source(source, entry.num_wanted)):
                return Grant.READY
        self.retire(sequence)
        return Grant.NONE

    def retire(self, sequence: Sequence, *, is_kept: bool = True) -> None:
        """A sequence gives its KV back, whatever its state; what it has computed is cached. Not `is_kept`: its KV
        cannot be trusted.
        """
        entry = self._live.pop(sequence)
        self._remove(entry)
        self._unlock(entry)
        entry.sequence = None
        sequence.handle = None
        tokens = sequence.token_ids[: sequence.num_computed]
        if not is_kept or entry.handle is None or not self._is_worth_keeping(entry, tokens):
            self._drop(entry)
            return
        self._drop_beginnings(entry.scope, tokens)
        entry.tokens = tokens
        entry.span = self._ledger.resize(entry.span, len(tokens))
        self._insert(entry)
        self._cached.add(entry)
        self._trim()

    def evict(self) -> bool:
        """Let one cached entry go; False when none can."""
        return self._evict(None)

    def clear(self) -> tuple[int, int]:
        """Let all that is cached go, but for what somebody waits for; how many entries and tokens these were."""
        before = len(self._cached), self.num_cached
        while self._let_go(None):
            pass
        return before[0] - len(self._cached), before[1] - self.num_cached

    def _find(self, sequence: Sequence) -> Source | None:
        tree = self._trees.get(self._scope(sequence))
        return None if tree is None else self._finder.find(tree, sequence)

    def _scope(self, sequence: Sequence) -> str:
        return sequence.tenant if self._config.scope is CacheScope.TENANT else ""

    def _can_fit(self, sequence: Sequence, source: Source | None, without: Collection[Sequence] = ()) -> bool:
        """Whether there is room for a sequence, once all that can go is gone."""
        shared = 0 if source is None else self._ledger.num_shared(source.num_tokens)
        need = self._ledger.size(sequence.num_reserved) - shared
        if self._ledger.total + need <= self._budget:
            return True
        held = [(entry.span, self._budget) for entry in self._held(without)]
        if source is not None and shared:
            held.append((source.entry.span, shared))
        return self._ledger.size_of(held) + need <= self._budget

    def _held(self, without: Collection[Sequence]) -> Iterator[Entry]:
        """What cannot be evicted once `without` have retired."""
        for sequence, entry in self._live.items():
            if sequence in without:
                continue
            yield entry
            if entry.source is not None and (entry.source.is_cached or entry.source.sequence in without):
                yield entry.source

    def _start(self, sequence: Sequence, source: Source | None) -> Grant:
        entry = self._enter(sequence, source)
        if self._obtain(entry, source):
            return Grant.READY
        self.retire(sequence)
        # A fork may fail for the runner's own reasons.
        if source is None or not self._can_fit(sequence, None):
            return Grant.NONE
        return self._start(sequence, None)

    def _enter(self, sequence: Sequence, source: Source | None) -> Entry:
        """A live entry with its reservation, without a handle."""
        if source is None:
            span = self._ledger.reserve(sequence.num_reserved)
        else:
            span = self._ledger.fork(source.entry.span, source.num_tokens, sequence.num_reserved)
        entry = Entry(self._scope(sequence), list(sequence.token_ids), span, sequence)
        self._live[sequence] = entry
        if self._config.is_cached:
            self._insert(entry)
        return entry

    def _obtain(self, entry: Entry, source: Source | None) -> bool:
        """Get a live entry the handle that it begins with."""
        sequence = entry.sequence
        assert sequence is not None
        if source is None and self._unpark(entry, sequence):
            return True
        count = 0 if source is None else source.num_tokens
        heir = self._heir(entry, source)
        if heir is None and not self._make_room(needs_handle=True, keep=source and source.entry):
            if source is None or not source.entry.can_go:
                return False
            heir = source.entry
        handle = self._branch(source) if heir is None else self._take_over(heir, count)
        if handle is None:
            return False
        self._make_room(needs_handle=False)
        entry.handle = sequence.handle = handle
        sequence.num_computed = count
        self._parking.forget(sequence)
        self._note(sequence, count)
        return True

    def _unpark(self, entry: Entry, sequence: Sequence) -> bool:
        """Let a live entry go on from what is parked of its sequence, if that can be had."""
        count = self._parking.num_tokens(sequence)
        if not count or not self._make_room(needs_handle=True):
            return False
        handle = self._parking.restore(sequence)
        if handle is None:
            return False
        self._num_handles += 1
        entry.handle = sequence.handle = handle
        sequence.num_computed = count
        return True

    def _heir(self, entry: Entry, source: Source | None) -> Entry | None:
        """A cached entry that the sequence goes on in, in place of a fork: one that nobody else needs, or one that
        would have to go for the fork and holds the beginning too.
        """
        if source is None:
            return None
        if self._finder.is_spent(source):
            return source.entry
        if self._fork is ForkKind.NONE:
            return source.entry if source.entry.can_go else None
        if self._num_handles < self._max_handles:
            return None
        victim = self._cached.choose(lambda entry: entry.can_go)
        is_alike = self._fork is ForkKind.COPIED and _begin_alike(victim, entry, source.num_tokens)
        return victim if victim is source.entry or is_alike else None

    def _take_over(self, heir: Entry, count: int) -> Handle:
        handle = heir.handle
        assert handle is not None
        self._forget(heir)
        self._ledger.release(heir.span)
        heir.handle = None
        if count < len(heir.tokens):
            self._runner.truncate(handle, count)
        return handle

    def _branch(self, source: Source | None) -> Handle | None:
        """A new handle; None when the runner has none, or no space for a copy."""
        while True:
            if source is None:
                handle = self._runner.create()
            else:
                assert source.entry.handle is not None
                handle = self._runner.fork(source.entry.handle, source.num_tokens)
            if handle is not None:
                self._num_handles += 1
                if source is not None and source.entry.is_cached:
                    self._cached.touch(source.entry)
                return handle
            if not self._evict(source and source.entry):
                return None

    def _make_room(self, *, needs_handle: bool, keep: Entry | None = None) -> bool:
        """Evict until all fit, and a handle is free; False when that is not to be had."""
        while self._ledger.total > self._budget or (needs_handle and self._num_handles >= self._max_handles):
            if not self._evict(keep):
                return False
        return True

    def _evict(self, keep: Entry | None) -> bool:
        is_gone = self._let_go(keep)
        self.counters.evictions += is_gone
        return is_gone

    def _let_go(self, keep: Entry | None) -> bool:
        victim = self._cached.choose(lambda entry: entry.can_go and entry is not keep)
        if victim is None:
            return False
        self._forget(victim)
        self._drop(victim)
        return True

    def _trim(self) -> None:
        """Keep no more than the runner bears."""
        if self._max_cached_tokens is not None:
            while self.num_cached > self._max_cached_tokens and self._evict(None):
                pass

    def _is_worth_keeping(self, entry: Entry, tokens: list[int]) -> bool:
        """Whether nobody else holds all of it. An equal one that is cached counts as used."""
        if not self._config.is_cached or len(tokens) < self._finder.min_shared:
            return False
        tree = self._trees.get(entry.scope)
        if tree is None:
            return True
        for other, shared in tree.find(tokens):
            if shared < len(tokens):
                return True
            holds_it = (
                other.num_tokens >= len(tokens) if self._can_cut else other.is_cached and len(other.tokens) == shared
            )
            if holds_it:
                if other.is_cached:
                    self._cached.touch(other)
                return False
        return True

    def _drop_beginnings(self, scope: str, tokens: list[int]) -> None:
        """Cached entries that hold nothing beyond `tokens` are of no use beside an entry that does."""
        tree = self._trees.get(scope)
        if tree is None or not self._can_cut:
            return
        for other in [found.item for found in tree.find(tokens) if len(found.item.tokens) == found.num_shared]:
            if other.can_go:
                self._forget(other)
                self._drop(other)

    def _forget(self, entry: Entry) -> None:
        """Take a cached entry off the books."""
        self._cached.remove(entry)
        self._remove(entry)

    def _drop(self, entry: Entry) -> None:
        """Free what an entry holds."""
        self._ledger.release(entry.span)
        handle, entry.handle = entry.handle, None
        if handle is not None:
            self._runner.release(handle)
            self._num_handles -= 1

    def _insert(self, entry: Entry) -> None:
        self._trees.setdefault(entry.scope, RadixTree()).insert(entry.tokens, entry)

    def _remove(self, entry: Entry) -> None:
        tree = self._trees.get(entry.scope)
        if tree is None or entry not in tree:
            return
        tree.remove(entry)
        if not tree:
            del self._trees[entry.scope]

    def _unlock(self, entry: Entry) -> None:
        source, entry.source = entry.source, None
        if source is not None:
            source.num_locks -= 1
            self.num_waiting -= 1

    def _note(self, sequence: Sequence, count: int) -> None:
        if sequence.num_cached is None:
            sequence.num_cached = min(count, sequence.num_prompt)
        if not self._config.is_cached:
            return
        counters = self.counters
        if count:
            counters.hits += 1
            counters.matched_tokens += count
        else:
            counters.misses += 1


def _begin_alike(one: Entry | None, other: Entry, count: int) -> bool:
    return one is not None and one.scope == other.scope and one.tokens[:count] == other.tokens[:count]
