"""An opened model: its decoder, its pages and its handles."""

import torch

from workers.runners.base import Batch, FloatArray, ForwardResult, ForwardStatus, Handle, RunnerError
from workers.runners.batch_rules import BatchLimits, Runs, check_batch
from workers.runners.torch.abort_flag import AbortFlag
from workers.runners.torch.decoder import Decoder
from workers.runners.torch.kv_memory import KvMemory
from workers.runners.torch.page_tables import PageTables
from workers.runners.torch.pages import num_pages
from workers.runners.torch.step import make_step


class Session:
    """Used by the engine thread. A step that fails leaves the handles as they were."""

    def __init__(self, decoder: Decoder, memory: KvMemory, tables: PageTables, limits: BatchLimits) -> None:
        self.tables = tables
        self._decoder = decoder
        self._memory = memory
        self._limits = limits

    def stage_seconds(self) -> dict[str, float]:
        return self._decoder.stage_seconds()

    def can_fit(self, batch: Batch) -> bool:
        return self._fits(check_batch(batch, self.tables, self._limits))

    def forward(self, batch: Batch, abort_flag: AbortFlag) -> ForwardResult:
        runs = check_batch(batch, self.tables, self._limits)
        if not self._fits(runs):
            return ForwardResult(ForwardStatus.NO_SPACE)
        copies = self.tables.grow(*runs)
        try:
            with torch.inference_mode():
                self._memory.copy(copies)
                logits = self._decoder.run(make_step(batch, runs, self.tables), self._memory, abort_flag)
                # The copy to the host is where a GPU says what went wrong.
                rows = None if logits is None else _to_host(logits)
        except torch.OutOfMemoryError:
            self.tables.shrink(*runs)
            _give_back_memory()
            return ForwardResult(ForwardStatus.NO_SPACE)
        except RuntimeError as error:
            self.tables.shrink(*runs)
            raise RunnerError(f"PyTorch failed: {str(error).splitlines()[0]}") from error
        if rows is None:
            self.tables.shrink(*runs)
            return ForwardResult(ForwardStatus.ABORTED)
        self.tables.advance(*runs)
        return ForwardResult(ForwardStatus.OK, rows)

    def fork(self, handle: Handle, num_tokens: int) -> Handle | None:
        forked = self.tables.fork(handle, num_tokens)
        if forked is None:
            return None
        fork, copy = forked
        if copy is not None:
            self._memory.copy([copy])
        return fork

    def export(self, handle: Handle) -> bytes:
        return self._memory.save(self.tables.pages(handle))

    def import_(self, data: bytes, num_tokens: int) -> Handle | None:
        """None as well for data that is not the KV of so many tokens."""
        count = num_pages(num_tokens)
        if num_tokens > self.tables.max_tokens or len(data) != self._memory.num_bytes(count):
            return None
        handle = self.tables.create_with(num_tokens)
        if handle is not None and num_tokens:
            self._memory.load(self.tables.pages(handle), data)
        return handle

    def _fits(self, runs: Runs) -> bool:
        longest = int((self.tables.lengths[runs.handle_ids] + runs.counts).max())
        return longest <= self.tables.max_tokens and self.tables.pages_needed(*runs) <= self.tables.pool.num_free


def _to_host(logits: torch.Tensor) -> FloatArray:
    if logits.device.type == "cuda":
        host = torch.empty(logits.shape, dtype=logits.dtype, pin_memory=True)
        host.copy_(logits, non_blocking=True)
        torch.cuda.synchronize()
        logits = host
    array: FloatArray = logits.cpu().numpy()
    return array


def _give_back_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
