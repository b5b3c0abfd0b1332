"""The echo runner: bytes in, bytes out, every rule of the runner interface checked."""

import hashlib
import os
import signal
import threading
import time
from typing import NamedTuple

import numpy as np

from workers.runners.base import (
    Batch,
    Capabilities,
    ForkKind,
    ForwardResult,
    ForwardStatus,
    Handle,
    Opened,
    RunnerBooks,
    RunnerError,
    RunnerFacts,
    RunnerSpec,
)
from workers.runners.echo.contents import Contents, mix, tokens_of
from workers.runners.echo.logits import LogitSource, RandomLogits, RepeatLogits, Row
from workers.runners.echo.options import EchoMode, EchoOptions, parse_source
from workers.runners.echo.tokenizer import BOS_TEXT, CHAT_TEMPLATE, EOS_TEXT, VOCAB_SIZE, ByteTokenizer

_CONTEXT = 8192
_SEQUENCES = 32
_BATCH_TOKENS = 512


class _Run(NamedTuple):
    """The rows `start` … `stop - 1` of a batch, which belong to one handle."""

    contents: Contents
    start: int
    stop: int


class EchoRunner:
    """Deterministic, exact in every batch. Threads, GPU layers and KV type mean nothing here.

    Asserts what callers promise: positions that start at a handle's length, one run a handle, nothing above the limits.
    """

    def __init__(self) -> None:
        self._aborted = threading.Event()
        self._options = EchoOptions()
        self._contents: list[Contents | None] = []
        self._generations: list[int] = []
        self._weights: list[int] = []
        self._context = self._batch_tokens = self._kv_tokens = 0
        self._logits: LogitSource = RepeatLogits()
        self._deadly = self._endless = ""
        self._busy_until = 0.0

    def open(self, spec: RunnerSpec) -> Opened:
        self._options = parse_source(spec.source)
        self._context = spec.context or _CONTEXT
        self._batch_tokens = spec.batch_tokens or _BATCH_TOKENS
        sequences = spec.sequences or _SEQUENCES
        self._kv_tokens = self._options.kv_tokens or self._context * sequences
        self._contents = [None] * sequences
        self._generations = [0] * sequences
        self._deadly = _as_contents(self._options.die_on)
        self._endless = _as_contents(self._options.hang_on)
        self._weights = [mix(position) | 1 for position in range(self._context)]
        is_random = self._options.mode is EchoMode.RANDOM
        self._logits = RandomLogits(self._options.seed) if is_random else RepeatLogits()
        self._try_step()
        template = spec.chat_template or CHAT_TEMPLATE
        return Opened(self._facts(template), self._capabilities())

    def close(self) -> None:
        self._contents = []
        self._generations = []

    def create(self) -> Handle | None:
        return self._adopt(Contents(self._weights))

    def release(self, handle: Handle) -> None:
        if self._find(handle) is not None:
            self._contents[handle.id] = None
            self._generations[handle.id] += 1

    def length(self, handle: Handle) -> int:
        return len(self._get(handle))

    def can_fit(self, batch: Batch) -> bool:
        return self._num_used + len(batch.tokens) <= self._kv_tokens

    def forward(self, batch: Batch) -> ForwardResult:
        self._aborted.clear()
        runs = self._runs(batch)
        if not self.can_fit(batch):
            return ForwardResult(ForwardStatus.NO_SPACE)
        tokens = batch.tokens.tolist()
        if not self._pace(runs):
            self._grow(runs, tokens, len(tokens) // 2)
            return ForwardResult(ForwardStatus.ABORTED)
        self._grow(runs, tokens, len(tokens))
        rows = self._rows(batch, runs)
        if _occurs(self._deadly, rows):
            os.kill(os.getpid(), signal.SIGKILL)
        if _occurs(self._endless, rows):
            threading.Event().wait()
        return ForwardResult(ForwardStatus.OK, self._logits.compute(rows))

    def fork(self, handle: Handle, num_tokens: int) -> Handle | None:
        contents = self._get(handle)
        assert 0 <= num_tokens <= len(contents), "a fork cannot be longer than its origin"
        if self._num_used + num_tokens > self._kv_tokens:
            return None
        return self._adopt(contents.copy(num_tokens))

    def truncate(self, handle: Handle, num_tokens: int) -> None:
        contents = self._get(handle)
        assert 0 <= num_tokens <= len(contents), "truncate cannot lengthen a handle"
        contents.truncate(num_tokens)

    def export(self, handle: Handle) -> bytes:
        return self._get(handle).to_bytes()

    def import_(self, data: bytes, num_tokens: int) -> Handle | None:
        tokens = tokens_of(data)
        assert len(tokens) == num_tokens, "the bytes hold another number of tokens"
        if num_tokens > self._context or self._num_used + num_tokens > self._kv_tokens:
            return None
        return self._adopt(Contents(self._weights, tokens))

    def books(self) -> RunnerBooks:
        held = enumerate(self._contents)
        lengths = {Handle(i, self._generations[i]): len(contents) for i, contents in held if contents is not None}
        return RunnerBooks(lengths, self._contents.count(None))

    def abort(self) -> None:
        self._aborted.set()

    @property
    def _num_used(self) -> int:
        return sum(len(contents) for contents in self._contents if contents is not None)

    def _find(self, handle: Handle) -> Contents | None:
        if handle.id >= len(self._contents) or self._generations[handle.id] != handle.generation:
            return None
        return self._contents[handle.id]

    def _get(self, handle: Handle) -> Contents:
        contents = self._find(handle)
        assert contents is not None, f"{handle} was released"
        return contents

    def _adopt(self, contents: Contents) -> Handle | None:
        for slot, held in enumerate(self._contents):
            if held is None:
                self._contents[slot] = contents
                return Handle(slot, self._generations[slot])
        return None

    def _runs(self, batch: Batch) -> list[_Run]:
        """Cut the batch into runs of one handle each, and check what the interface promises."""
        size = len(batch.tokens)
        assert 0 < size <= self._batch_tokens, f"{size} tokens in a batch of at most {self._batch_tokens}"
        assert len(batch.handle_ids) == len(batch.positions) == size, "the arrays differ in length"
        assert batch.tokens.min() >= 0 and batch.tokens.max() < VOCAB_SIZE, "a token outside the vocabulary"
        wanted = batch.logit_rows
        assert not len(wanted) or (wanted[-1] < size and (np.diff(wanted) > 0).all()), "logit rows are not ascending"
        starts = [0, *(np.flatnonzero(np.diff(batch.handle_ids)) + 1).tolist()]
        ids = batch.handle_ids[starts].tolist()
        assert len(set(ids)) == len(ids), "a handle appears twice"
        runs = []
        for slot, start, stop in zip(ids, starts, [*starts[1:], size], strict=True):
            contents = self._contents[slot]
            assert contents is not None, f"handle {slot} was released"
            assert len(contents) + stop - start <= self._context, f"handle {slot} would outgrow {self._context} tokens"
            runs.append(_Run(contents, start, stop))
        firsts = np.repeat([len(run.contents) - run.start for run in runs], [run.stop - run.start for run in runs])
        assert (batch.positions == np.arange(size) + firsts).all(), "positions do not continue their handles"
        return runs

    def _pace(self, runs: list[_Run]) -> bool:
        """Take the time a model would; False when aborted meanwhile."""
        rate, prefill_rate = self._options.rate, self._options.prefill_rate
        sizes = [run.stop - run.start for run in runs]
        num_prefill = sum(size for size, run in zip(sizes, runs, strict=True) if size > 1 or not len(run.contents))
        duration = num_prefill / prefill_rate if prefill_rate else 0.0
        if rate and num_prefill < sum(sizes):
            duration += 1 / rate
        if not duration:
            return True
        now = time.monotonic()
        # What the caller spent between two passes counts, so that the rate is the one asked for.
        start = self._busy_until if now - self._busy_until < duration else now
        self._busy_until = start + duration
        if self._aborted.wait(max(0.0, self._busy_until - now)):
            self._busy_until = time.monotonic()
            return False
        return True

    @staticmethod
    def _grow(runs: list[_Run], tokens: list[int], num_rows: int) -> None:
        for contents, start, stop in runs:
            contents.extend(tokens[start : min(stop, num_rows)])

    @staticmethod
    def _rows(batch: Batch, runs: list[_Run]) -> list[Row]:
        rows = []
        remaining = iter(runs)
        run = next(remaining)
        for row in batch.logit_rows.tolist():
            while row >= run.stop:
                run = next(remaining)
            rows.append(Row(run.contents, len(run.contents) - run.stop + row))
        return rows

    def _try_step(self) -> None:
        """One token through everything, as with a real model."""
        handle = self.create()
        assert handle is not None
        zero, one = np.zeros(1, np.int32), np.full(1, handle.id, np.int32)
        if self.forward(Batch(zero, one, zero, zero)).status is not ForwardStatus.OK:
            raise RunnerError("the trial step failed")
        self.release(handle)

    def _facts(self, template: str) -> RunnerFacts:
        digest = hashlib.sha256(f"{self._options.mode}\n{self._options.seed}\n{template}".encode()).hexdigest()
        return RunnerFacts(
            fingerprint=f"echo-{digest[:16]}",
            tokenizer=ByteTokenizer(),
            chat_template=template,
            bos_token=BOS_TEXT,
            eos_token=EOS_TEXT,
            description=f"echo ({self._options.mode})",
            bytes_per_token=1.0,
            max_token_bytes=1,
        )

    def _capabilities(self) -> Capabilities:
        return Capabilities(
            max_batch_tokens=self._batch_tokens,
            max_logit_rows=self._batch_tokens,
            max_handles=len(self._contents),
            max_tokens_per_handle=self._context,
            kv_token_budget=self._kv_tokens,
            fork=ForkKind.COPIED,
            fork_cost_tokens=1,
            can_truncate=True,
            page_size=None,
            can_export=True,
            exact_batching=True,
            kv_format="echo-1",
        )


def _as_contents(text: str | None) -> str:
    """As `Contents.text` has it: one character for each token, which is a byte."""
    return (text or "").encode().decode("latin-1")


def _occurs(text: str, rows: list[Row]) -> bool:
    return text != "" and any(text in row.contents.text(row.position) for row in rows)
