"""An opened model with its handles: a forward pass, and what it needs room for."""

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from workers.runners.base import Batch, FloatArray, ForwardResult, ForwardStatus, IntArray, RunnerError
from workers.runners.batch_rules import BatchLimits
from workers.runners.mlx.group_pass import GroupPass, PassAborted
from workers.runners.mlx.groups import group_runs
from workers.runners.mlx.handles import HandleTable
from workers.runners.mlx.runs import Run, cut_batch
from workers.runners.mlx.sequence_kv import KvLayout
from workers.runners.mlx.sizing import KvPlan

# What a padded token of keys and values costs: it is read, written, and read again.
_PADDING_PASSES = 3


class Session:
    """Once a pass failed for good, no other will run.

    A handle's length changes at the very end of a pass, so that one that was aborted has changed nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        layout: KvLayout,
        plan: KvPlan,
        limits: BatchLimits,
        *,
        weights_bytes: int,
        poll_layers: int,
        is_aborted: Callable[[], bool],
    ) -> None:
        self.layout = layout
        self.plan = plan
        self.limits = limits
        self.table = HandleTable(plan.handles, layout)
        self._model = model
        self._max_padding = weights_bytes // (_PADDING_PASSES * layout.bytes_per_token)
        self._poll_layers = poll_layers
        self._is_aborted = is_aborted
        self._broken = ""

    def has_room(self, num_tokens: int) -> bool:
        """For so many more, over all handles."""
        return self.table.num_tokens + num_tokens <= self.plan.token_budget

    def fits(self, positions: IntArray) -> bool:
        return int(positions.max()) < self.plan.context and self.has_room(len(positions))

    def forward(self, batch: Batch) -> ForwardResult:
        if self._broken:
            raise RunnerError(self._broken)
        runs = cut_batch(batch, self.table, self.limits)
        if not self.fits(batch.positions):
            return ForwardResult(ForwardStatus.NO_SPACE)
        try:
            logits = self._compute(runs, batch)
        except PassAborted:
            for run in runs:
                run.sequence.truncate(run.sequence.length)
            return ForwardResult(ForwardStatus.ABORTED)
        except (RuntimeError, ValueError) as error:
            self._broken = f"mlx failed in a pass of {len(batch.tokens)} tokens: {error}"
            raise RunnerError(self._broken) from error
        for run in runs:
            run.sequence.length = run.end_length
        return ForwardResult(ForwardStatus.OK, logits)

    def _compute(self, runs: list[Run], batch: Batch) -> FloatArray:
        logits = np.empty((len(batch.logit_rows), self.limits.vocab_size), np.float32)
        for group in group_runs(runs, self._max_padding):
            if self._is_aborted():
                raise PassAborted
            numbers = [run.start + row for run in group for row in run.logit_rows]
            found = self._run(GroupPass(group, self._is_aborted, self._poll_layers))
            if found is not None:
                logits[np.searchsorted(batch.logit_rows, numbers)] = np.asarray(found)
        return logits

    def _run(self, group: GroupPass) -> mx.array | None:
        """Logits of the wanted rows in float32; None when there are none."""
        hidden = self._model.model(group.tokens(), group.caches(self.layout.num_layers))
        wanted = group.wanted()
        if not wanted:
            group.finish()
            return None
        logits = self._head(hidden.reshape(-1, hidden.shape[-1])[mx.array(wanted)])
        logits = logits[:, : self.limits.vocab_size].astype(mx.float32)
        group.finish(logits)
        return logits

    def _head(self, hidden: mx.array) -> mx.array:
        if self._model.args.tie_word_embeddings:
            return self._model.model.embed_tokens.as_linear(hidden)
        return self._model.lm_head(hidden)
