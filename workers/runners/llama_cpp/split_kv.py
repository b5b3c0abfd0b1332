"""A KV buffer per sequence."""

from workers.runners.base import ForkKind, IntArray
from workers.runners.batch_rules import Runs
from workers.runners.llama_cpp.context import LlamaContext
from workers.runners.llama_cpp.handles import HandleTable
from workers.runners.llama_cpp.sizing import KvPlan


class SplitKv:
    """Room is each handle's own affair, a fork is a copy, and sequences are kept close together (why: `handles.py`).

    Copies go through the library's export and import: they are done when the call returns, and cost by length (3 ms
    for 512 tokens of a 135M model; `llama_memory_seq_cp` copies whole buffers, 9 ms at 2,048 cells).
    """

    fork_kind = ForkKind.COPIED
    fork_cost_tokens = 8
    layout = "split"
    is_order_free = False

    def __init__(self, context: LlamaContext, table: HandleTable, plan: KvPlan) -> None:
        self._context = context
        self._table = table
        self._max_length = plan.context

    def fits(self, positions: IntArray) -> bool:
        return int(positions.max()) < self._max_length

    def has_room(self, num_tokens: int) -> bool:
        return num_tokens <= self._max_length

    def arrange(self, runs: Runs) -> None:
        """Move at most one sequence, or exchange two, so that no step pays for more copies than that."""
        move = self._table.next_move(runs.handle_ids)
        if move is None:
            return
        if move.idle_id is not None:
            self._context.exchange(move.source, move.target)
        elif self._context.copy(move.source, move.target):
            self._context.clear(move.source)
        else:
            return
        self._table.move(move)

    def append(self, handle_ids: IntArray, positions: IntArray) -> None:
        """The buffers are there already."""

    def fork(self, source_id: int, target_id: int, num_tokens: int) -> bool:
        source, target = (int(self._table.sequences[handle_id]) for handle_id in (source_id, target_id))
        if not self._context.copy(source, target):
            return False
        return num_tokens == self._table.lengths[source_id] or self._context.truncate(target, num_tokens)

    def truncate(self, handle_id: int, num_tokens: int) -> None:
        """A buffer's cells are its sequence's for good."""

    def fault(self, lengths: dict[int, int]) -> str:
        """Nothing is shared, so nothing can be held twice."""
        return ""
