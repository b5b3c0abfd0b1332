"""One KV buffer for all sequences. A forked prefix lies in it once."""

from workers.runners.base import ForkKind, IntArray
from workers.runners.batch_rules import Runs
from workers.runners.llama_cpp.cells import CellLedger
from workers.runners.llama_cpp.context import LlamaContext
from workers.runners.llama_cpp.handles import HandleTable
from workers.runners.llama_cpp.sizing import KvPlan


class UnifiedKv:
    """Keeps count of the cells, since the library does not tell how many are free before it fails."""

    fork_kind = ForkKind.SHARED
    fork_cost_tokens = 0
    layout = "unified"
    is_order_free = True

    def __init__(self, context: LlamaContext, table: HandleTable, plan: KvPlan) -> None:
        self._context = context
        self._table = table
        self._max_length = plan.context
        self._cells = CellLedger(table.capacity, plan.context, plan.num_cells)

    def fits(self, positions: IntArray) -> bool:
        return int(positions.max()) < self._max_length and len(positions) <= self._cells.num_free

    def has_room(self, num_tokens: int) -> bool:
        return num_tokens <= min(self._max_length, self._cells.num_free)

    def arrange(self, runs: Runs) -> None:
        """Any order of sequences runs in one pass here."""

    def append(self, handle_ids: IntArray, positions: IntArray) -> None:
        self._cells.append(handle_ids, positions)

    def fork(self, source_id: int, target_id: int, num_tokens: int) -> bool:
        sequences = self._table.sequences
        self._context.share(int(sequences[source_id]), int(sequences[target_id]), num_tokens)
        self._cells.share(source_id, target_id, num_tokens)
        return True

    def truncate(self, handle_id: int, num_tokens: int) -> None:
        self._cells.drop(handle_id, num_tokens, int(self._table.lengths[handle_id]))

    def fault(self, lengths: dict[int, int]) -> str:
        """What the count of cells and those of the handles, by id, contradict each other in; empty when nothing."""
        return self._cells.fault(lengths)
