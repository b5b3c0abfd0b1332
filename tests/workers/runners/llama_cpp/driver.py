"""Drives a runner as the engine does, one handle's tokens at a time or many in a batch."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from workers.runners.base import Batch, FloatArray, ForwardResult, ForwardStatus, Handle, Opened
from workers.runners.llama_cpp.runner import LlamaCppRunner


class Feed(NamedTuple):
    """Tokens for a handle. Logits come for the last of them, or for all."""

    handle: Handle
    token_ids: Sequence[int]
    all_logits: bool = False


class Driver:
    """A runner that is open, and shorthand for batches."""

    def __init__(self, runner: LlamaCppRunner, opened: Opened) -> None:
        self.runner = runner
        self.facts, self.capabilities = opened
        self.tokenizer = opened.facts.tokenizer

    def create(self) -> Handle:
        handle = self.runner.create()
        assert handle is not None
        return handle

    def batch(self, *feeds: Feed) -> Batch:
        tokens, ids, positions, rows = [], [], [], []
        for handle, token_ids, all_logits in feeds:
            start = self.runner.length(handle)
            rows += [len(tokens) + row for row in range(len(token_ids)) if all_logits or row == len(token_ids) - 1]
            tokens += token_ids
            ids += [handle.id] * len(token_ids)
            positions += range(start, start + len(token_ids))
        return Batch(*(np.array(column, np.int32) for column in (tokens, ids, positions, rows)))

    def try_forward(self, *feeds: Feed) -> ForwardResult:
        return self.runner.forward(self.batch(*feeds))

    def forward(self, *feeds: Feed) -> FloatArray:
        """Logits of a batch that must run, kept."""
        result = self.try_forward(*feeds)
        assert result.status is ForwardStatus.OK
        assert result.logits is not None
        return result.logits.copy()

    def feed(self, handle: Handle, token_ids: Sequence[int], *, chunk: int | None = None) -> FloatArray:
        """Logits after the last token, (vocab_size,)."""
        size = chunk or self.capabilities.max_batch_tokens
        for start in range(0, len(token_ids), size):
            logits = self.forward(Feed(handle, token_ids[start : start + size]))
        return logits[0]

    def all_logits(self, handle: Handle, token_ids: Sequence[int]) -> FloatArray:
        """Logits after each token, (len(token_ids), vocab_size)."""
        size = self.capabilities.max_logit_rows
        parts = range(0, len(token_ids), size)
        return np.concatenate([self.forward(Feed(handle, token_ids[at : at + size], all_logits=True)) for at in parts])

    def greedy(self, handle: Handle, prompt: Sequence[int], count: int) -> list[int]:
        """Up to `count` tokens, ending with an end token if one comes."""
        output: list[int] = []
        logits = self.feed(handle, prompt)
        while True:
            output.append(int(logits.argmax()))
            if len(output) == count or output[-1] in self.tokenizer.end_ids:
                return output
            logits = self.feed(handle, output[-1:])

    def text(self, token_ids: Sequence[int]) -> str:
        return b"".join(map(self.tokenizer.token_bytes, token_ids)).decode()

    def release_all(self) -> None:
        """Every handle that a test may have left."""
        for slot, generation in enumerate(self.runner._open_session().table._generations):
            self.runner.release(Handle(slot, generation))
