"""The echo runner, keeping its KV as other runners do: in pages, shared or copied, with spare handles, and refusing."""

from dataclasses import replace

from workers.runners.base import Batch, ForkKind, ForwardResult, ForwardStatus, Handle, Opened, RunnerSpec
from workers.runners.echo import EchoRunner
from workers.runners.echo.contents import Contents, tokens_of


class EchoKind(EchoRunner):
    """`num_used` counts what is really taken: pages, those of several handles once. `num_aborts` and `num_refusals`:
    so many of the next passes end half way, or find no space.
    """

    def __init__(
        self,
        fork: ForkKind = ForkKind.COPIED,
        *,
        page_size: int | None = None,
        spare: int = 0,
        can_truncate: bool = True,
    ) -> None:
        super().__init__()
        self._fork = fork
        self._page_size = page_size or 1
        self._spare = spare
        self._can_truncate = can_truncate
        self._pages: dict[int, list[int]] = {}
        self._num_pages_made = 0
        self.num_aborts = self.num_refusals = 0
        self.num_forks = self.num_forwarded = 0

    def open(self, spec: RunnerSpec) -> Opened:
        assert spec.sequences is not None
        facts, capabilities = super().open(replace(spec, sequences=spec.sequences + self._spare))
        return Opened(
            facts,
            replace(
                capabilities,
                fork=self._fork,
                fork_cost_tokens=0 if self._fork is ForkKind.SHARED else 3,
                page_size=None if self._page_size == 1 else self._page_size,
                can_truncate=self._can_truncate,
                max_running=spec.sequences,
            ),
        )

    @property
    def num_used(self) -> int:
        return len({page for pages in self._pages.values() for page in pages}) * self._page_size

    def can_fit(self, batch: Batch) -> bool:
        runs = self._runs(batch)
        lengths = [(len(run.contents), run.stop - run.start) for run in runs]
        new = sum(self._num_pages(length + count) - self._num_pages(length) for length, count in lengths)
        return self.num_used + new * self._page_size <= self._kv_tokens

    def forward(self, batch: Batch) -> ForwardResult:
        if self.num_refusals:
            self.num_refusals -= 1
            return ForwardResult(ForwardStatus.NO_SPACE)
        if self.num_aborts:
            self.num_aborts -= 1
            self._grow(self._runs(batch), batch.tokens.tolist(), len(batch.tokens) // 2)
            result = ForwardResult(ForwardStatus.ABORTED)
        else:
            result = super().forward(batch)
            self.num_forwarded += len(batch.tokens) if result.status is ForwardStatus.OK else 0
        for slot in set(batch.handle_ids.tolist()):
            self._count(slot)
        return result

    def create(self) -> Handle | None:
        handle = super().create()
        if handle is not None:
            self._pages[handle.id] = []
        return handle

    def release(self, handle: Handle) -> None:
        if self._find(handle) is not None:
            del self._pages[handle.id]
        super().release(handle)

    def fork(self, handle: Handle, num_tokens: int) -> Handle | None:
        assert self._fork is not ForkKind.NONE, "it said it cannot fork"
        self._check_cut(handle, num_tokens)
        fork = self._adopt(self._get(handle).copy(num_tokens))
        if fork is not None:
            self.num_forks += 1
            whole = num_tokens // self._page_size if self._fork is ForkKind.SHARED else 0
            self._pages[fork.id] = self._pages[handle.id][:whole]
            self._count(fork.id)
            assert self.num_used <= self._kv_tokens, "no space was kept for this fork"
        return fork

    def import_(self, data: bytes, num_tokens: int) -> Handle | None:
        handle = self._adopt(Contents(self._weights, tokens_of(data)))
        if handle is not None:
            self._pages[handle.id] = []
            self._count(handle.id)
            assert self.num_used <= self._kv_tokens, "no space was kept for what was parked"
        return handle

    def truncate(self, handle: Handle, num_tokens: int) -> None:
        self._check_cut(handle, num_tokens)
        super().truncate(handle, num_tokens)
        # A page that is cut is written to again, so it must be its own.
        del self._pages[handle.id][num_tokens // self._page_size :]
        self._count(handle.id)

    def _check_cut(self, handle: Handle, num_tokens: int) -> None:
        assert self._can_truncate or num_tokens == self.length(handle), "it said it cannot be cut"

    def _num_pages(self, num_tokens: int) -> int:
        return -(-num_tokens // self._page_size)

    def _count(self, slot: int) -> None:
        contents, pages = self._contents[slot], self._pages[slot]
        assert contents is not None
        del pages[self._num_pages(len(contents)) :]
        while len(pages) < self._num_pages(len(contents)):
            self._num_pages_made += 1
            pages.append(self._num_pages_made)
