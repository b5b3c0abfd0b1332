"""Feeding a runner, and comparing what it says on two ways to the same place."""

from dataclasses import dataclass

import numpy as np

from workers.runners.base import Batch, FloatArray, ForwardStatus, Handle, ModelRunner, Opened

# recipes for kernels whose sums depend on the batch: the other way's best token is within this many logits of the best
# here, and the distributions differ by this much on average.
MAX_LOGIT_GAP = 1.5
MAX_MEAN_KL = 0.02


@dataclass(frozen=True, slots=True)
class Run:
    """Tokens for one handle, continuing it; logits are wanted for all of them or the last."""

    handle: Handle
    tokens: list[int]
    all_logits: bool = False


class Driver:
    """A runner with its books: how long each handle is, and which ones there were."""

    def __init__(self, runner: ModelRunner, opened: Opened) -> None:
        self.runner = runner
        self.facts, self.capabilities = opened
        self._handles: list[Handle] = []

    def create(self) -> Handle:
        handle = self.try_create()
        assert handle is not None
        return handle

    def try_create(self) -> Handle | None:
        return self._note(self.runner.create())

    def fork(self, handle: Handle, num_tokens: int) -> Handle | None:
        return self._note(self.runner.fork(handle, num_tokens))

    def import_(self, data: bytes, num_tokens: int) -> Handle | None:
        return self._note(self.runner.import_(data, num_tokens))

    def release_all(self) -> None:
        for handle in self._handles:
            self.runner.release(handle)
        self._handles.clear()

    def batch(self, *runs: Run) -> Batch:
        sizes = [len(run.tokens) for run in runs]
        ends = np.cumsum(sizes).tolist()
        starts = [self.runner.length(run.handle) for run in runs]
        wanted = [
            row
            for run, size, end in zip(runs, sizes, ends, strict=True)
            for row in range(end - (size if run.all_logits else 1), end)
        ]
        return Batch(
            tokens=np.array([token for run in runs for token in run.tokens], np.int32),
            handle_ids=np.repeat([run.handle.id for run in runs], sizes).astype(np.int32),
            positions=np.concatenate([np.arange(n) + start for n, start in zip(sizes, starts, strict=True)]).astype(
                np.int32
            ),
            logit_rows=np.array(wanted, np.int32),
        )

    def forward(self, *runs: Run) -> FloatArray:
        """A copy of the logits; the pass must succeed."""
        result = self.runner.forward(self.batch(*runs))
        assert result.status is ForwardStatus.OK
        assert result.logits is not None
        assert result.logits.dtype == np.float32
        assert result.logits.shape[1] == self.facts.tokenizer.vocab_size
        return result.logits.copy()

    def feed(self, handle: Handle, tokens: list[int], *, chunk: int = 128) -> FloatArray:
        """Logits (len(tokens), vocabulary) after every token."""
        rows = [
            self.forward(Run(handle, tokens[start : start + chunk], all_logits=True))
            for start in range(0, len(tokens), chunk)
        ]
        return np.concatenate(rows)

    def _note(self, handle: Handle | None) -> Handle | None:
        if handle is not None:
            self._handles.append(handle)
        return handle

    def compare(self, here: FloatArray, there: FloatArray, *, same_path: bool = False) -> None:
        """Equal to the bit where the runner promises it or the way was the same, else by tolerance."""
        assert here.shape == there.shape
        if same_path or self.capabilities.exact_batching:
            np.testing.assert_array_equal(here, there)
            return
        rows = np.arange(len(here))
        gaps = here.max(axis=1) - here[rows, there.argmax(axis=1)]
        assert gaps.max() <= MAX_LOGIT_GAP
        assert mean_kl(here, there) <= MAX_MEAN_KL
        assert (here.argmax(axis=1) == there.argmax(axis=1)).mean() >= 0.9


def mean_kl(here: FloatArray, there: FloatArray) -> float:
    p, q = (_log_softmax(logits.astype(np.float64)) for logits in (here, there))
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits - logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
