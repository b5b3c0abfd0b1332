"""An opened model: its context, its KV layout and its handles."""

from contextlib import ExitStack

import numpy as np

from workers.runners.base import Batch, ForwardResult, ForwardStatus, Handle, RunnerBooks, RunnerError
from workers.runners.batch_rules import BatchLimits, Runs, check_batch
from workers.runners.llama_cpp.handles import HandleTable
from workers.runners.llama_cpp.loading import Loaded
from workers.runners.llama_cpp.row_order import LogitsOrder, as_given, in_sequence_order
from workers.runners.llama_cpp.split_kv import SplitKv
from workers.runners.llama_cpp.unified_kv import UnifiedKv


class Session:
    """An opened model's KV and handles. Once a decode failed for good, no other will run."""

    def __init__(self, loaded: Loaded) -> None:
        self.stack = ExitStack()
        self.context = loaded.context
        self.table = HandleTable(loaded.plan.num_handles)
        layout = UnifiedKv if loaded.plan.is_unified else SplitKv
        self.kv: UnifiedKv | SplitKv = layout(self.context, self.table, loaded.plan)
        self._can_cut = loaded.model.can_rewind
        self._limits = BatchLimits(
            max_tokens=self.context.max_batch_tokens,
            max_logit_rows=loaded.options.logit_rows,
            vocab_size=self.context.vocab_size,
        )
        self._logits_order = LogitsOrder()
        self._broken = ""

    def forward(self, batch: Batch) -> ForwardResult:
        if self._broken:
            raise RunnerError(self._broken)
        runs = check_batch(batch, self.table, self._limits)
        if not self.kv.fits(batch.positions):
            return ForwardResult(ForwardStatus.NO_SPACE)
        self.kv.arrange(runs)
        sequences = self.table.sequences[batch.handle_ids]
        rows = as_given(batch, sequences) if self.kv.is_order_free else in_sequence_order(batch, sequences)
        match self.context.decode(rows.tokens, rows.positions, rows.sequences, rows.logit_rows):
            case 0:
                self.kv.append(batch.handle_ids, batch.positions)
                self.table.lengths[runs.handle_ids] += runs.counts
                logits = self.context.logits(len(batch.logit_rows))
                return ForwardResult(ForwardStatus.OK, self._logits_order.restore(logits, rows.ranks))
            case 1:
                return ForwardResult(ForwardStatus.NO_SPACE)
            case 2:
                self._take_back(runs)
                return ForwardResult(ForwardStatus.ABORTED)
            case code:
                self._broken = f"llama_decode failed with code {code}: {self.context.last_error}"
                raise RunnerError(self._broken)

    def check_cut(self, handle: Handle, num_tokens: int) -> None:
        """Whether a handle has a prefix of this length, and this model can be cut there."""
        self.table.sequence(handle)
        length = int(self.table.lengths[handle.id])
        if not 0 <= num_tokens <= length:
            raise ValueError(f"{handle} has {length} tokens, not {num_tokens}")
        if num_tokens not in (0, length) and not self._can_cut:
            raise ValueError("this model's sequences cannot be cut")

    def truncate(self, handle: Handle, num_tokens: int) -> None:
        self.check_cut(handle, num_tokens)
        if num_tokens == self.table.lengths[handle.id]:
            return
        if not self.context.truncate(self.table.sequence(handle), num_tokens):
            raise RunnerError(f"llama.cpp does not cut a sequence at {num_tokens} tokens")
        self.kv.truncate(handle.id, num_tokens)
        self.table.lengths[handle.id] = num_tokens

    def load(self, handle: Handle, data: bytes, num_tokens: int) -> bool:
        sequence = self.table.sequence(handle)
        if not self.context.load(sequence, data) or self.context.num_tokens(sequence) != num_tokens:
            return False
        self.kv.append(np.full(num_tokens, handle.id, np.int32), np.arange(num_tokens, dtype=np.int32))
        self.table.lengths[handle.id] = num_tokens
        return True

    def books(self) -> RunnerBooks:
        """Our table beside what the library holds in its sequences, and beside the cells of a unified buffer."""
        table = self.table
        lengths = {handle: int(table.lengths[handle.id]) for handle in table.live()}
        expected = {table.sequence(handle): length for handle, length in lengths.items()}
        faults = []
        for sequence in range(table.capacity):
            held, wanted = self.context.num_tokens(sequence), expected.get(sequence, 0)
            if held != wanted:
                faults.append(f"llama.cpp has {held} tokens in sequence {sequence} instead of {wanted}")
        if fault := self.kv.fault({handle.id: length for handle, length in lengths.items()}):
            faults.append(fault)
        return RunnerBooks(lengths, table.capacity - len(lengths), "; ".join(faults))

    def _take_back(self, runs: Runs) -> None:
        """Undo what an aborted decode did finish."""
        for handle_id in runs.handle_ids:
            self.context.truncate(int(self.table.sequences[handle_id]), int(self.table.lengths[handle_id]))
