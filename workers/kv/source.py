"""Where a sequence finds its beginning computed, or about to be."""

from typing import NamedTuple

from workers.engine.sequence import Sequence
from workers.kv.entry import Entry
from workers.kv.radix_tree import RadixTree
from workers.runners.base import Capabilities, ForkKind

# A beginning shorter than this is computed as quickly as it is shared.
_MIN_SHARED = 8
# To wait for another's prompt must save at least this much over what is there already.
_MIN_WAITED_FOR = 32


class Source(NamedTuple):
    """The first `num_tokens` can be taken from `entry`; not before it has computed them when `must_wait`."""

    entry: Entry
    num_tokens: int
    must_wait: bool = False


class SourceFinder:
    """Knows what pays on a runner: whether to fork at all, and from how many tokens on."""

    def __init__(self, capabilities: Capabilities) -> None:
        self._fork = capabilities.fork
        self._fork_cost = capabilities.fork_cost_tokens
        self._can_cut = capabilities.can_truncate
        self._page_size = capabilities.page_size or 1
        self._min_shared = max(_MIN_SHARED, self._fork_cost + 1)

    @property
    def min_shared(self) -> int:
        """Fewer tokens than this are not worth to be kept."""
        return self._min_shared

    def find(self, tree: RadixTree[Entry], sequence: Sequence) -> Source | None:
        """The longest beginning that is there, or one that comes and is worth the wait.

        The last token is never taken: its logits are needed. Whom a sequence waits for comes before it in the order of
        service, so it never waits for one that is itself kept waiting.
        """
        limit = len(sequence.token_ids) - 1
        best: Entry | None = None
        leader: Entry | None = None
        num_best = num_coming = 0
        for entry, shared in tree.find(sequence.token_ids):
            num_shared = min(shared, limit)
            if num_shared < max(num_best, self._min_shared):
                break
            count = self._usable(entry, num_shared)
            if best is None or count > num_best or (count == num_best and _is_better(entry, best)):
                best, num_best = entry, count
            if num_shared >= num_coming and self._is_leader(entry, sequence):
                leader, num_coming = _further(leader, entry), num_shared
        if leader is not None and num_coming - num_best >= _MIN_WAITED_FOR:
            return Source(leader, self._rounded(num_coming), must_wait=True)
        if best is None or num_best < self._min_shared:
            return None
        return Source(best, num_best if self._is_spent(best, num_best) else self._rounded(num_best))

    def is_spent(self, source: Source) -> bool:
        """Whether nobody else needs the entry, and what it holds beyond costs less than a fork: it is to go on as the
        sequence's own.
        """
        return self._is_spent(source.entry, source.num_tokens)

    def _is_spent(self, entry: Entry, count: int) -> bool:
        return entry.can_go and len(entry.tokens) - count <= self._fork_cost

    def _usable(self, entry: Entry, num_shared: int) -> int:
        """How many of the shared tokens can be taken now. Where nothing can be cut it is the whole entry or nothing."""
        if not entry.is_cached and self._fork is ForkKind.NONE:
            return 0
        if not self._can_cut:
            return num_shared if entry.is_cached and len(entry.tokens) == num_shared else 0
        return min(num_shared, entry.num_tokens)

    def _is_leader(self, entry: Entry, sequence: Sequence) -> bool:
        if not self._can_cut or self._fork is ForkKind.NONE or entry.sequence is None:
            return False
        return entry.sequence.order < sequence.order

    def _rounded(self, count: int) -> int:
        """Down to whole pages where copying a part of one costs more than to compute it."""
        rest = count % self._page_size
        return count - rest if rest <= self._fork_cost else count


def _further(leader: Entry | None, entry: Entry) -> Entry:
    """Of two with the same beginning, the one that has computed more."""
    return entry if leader is None or entry.num_tokens > leader.num_tokens else leader


def _is_better(entry: Entry, other: Entry) -> bool:
    """Of two that hold as much: a cached one that ends there, else the one that is cheaper to copy."""
    return len(entry.tokens) < len(other.tokens) if entry.is_cached == other.is_cached else entry.is_cached
