"""One pass of the model over the runs of a group."""

from collections.abc import Callable

import mlx.core as mx
import numpy as np

from workers.runners.mlx.runs import Run

# Padded calls come in sizes of this many tokens, so that the buffers of one step serve for the next.
_SIZE_STEP = 64


class PassAborted(Exception):
    """The abort flag was set during a pass."""


class GroupPass:
    """What the layers of one pass share: positions, mask, and the arrays of the handles.

    A pass over a single run works on its arrays as they are. One over several pads tokens to the longest run, and keys
    and values to the longest handle, for this call alone.
    """

    def __init__(self, runs: list[Run], is_aborted: Callable[[], bool], poll_layers: int) -> None:
        self._runs = runs
        self._is_aborted = is_aborted
        self._width = max(len(run.tokens) for run in runs)
        # A step of decodes is short, and ends before anybody could tell.
        self._poll_layers = poll_layers if self._width > 1 else 0
        longest = max(run.end_length for run in runs)
        self._size = longest if len(runs) == 1 else -(-longest // _SIZE_STEP) * _SIZE_STEP
        self._pending: list[mx.array] = []
        self.offsets = mx.array([run.sequence.length for run in runs], mx.int32)
        self.mask = self._mask()

    def tokens(self) -> mx.array:
        padded = np.zeros((len(self._runs), self._width), np.int32)
        for row, run in zip(padded, self._runs, strict=True):
            row[: len(run.tokens)] = run.tokens
        return mx.array(padded)

    def wanted(self) -> list[int]:
        """The rows of logits that are wanted, as indices into the padded tokens laid end to end."""
        return [index * self._width + row for index, run in enumerate(self._runs) for row in run.logit_rows]

    def caches(self, num_layers: int) -> list["LayerCache"]:
        return [LayerCache(self, layer) for layer in range(num_layers)]

    def update(self, layer: int, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Write a layer's new keys and values to their handles; all that its queries may look at."""
        if self._poll_layers and layer and layer % self._poll_layers == 0:
            self._poll(keys)
        found = []
        for index, run in enumerate(self._runs):
            new = slice(index, index + 1), slice(None), slice(0, len(run.tokens))
            run.sequence.write(layer, keys[new], values[new])
            self._pending.extend(run.sequence.arrays(layer))
            found.append(run.sequence.read(layer, self._size))
        if len(found) == 1:
            return found[0]
        return mx.concatenate([keys for keys, _ in found]), mx.concatenate([values for _, values in found])

    def finish(self, *outputs: mx.array) -> None:
        """Compute what is left, keys and values included."""
        mx.eval(*outputs, *self._pending)
        self._pending.clear()

    def _poll(self, keys: mx.array) -> None:
        # What is pending is evaluated first: after an abort no array may hold on to the graph of this pass.
        self.finish(keys)
        if self._is_aborted():
            raise PassAborted

    def _mask(self) -> mx.array | str | None:
        if len(self._runs) == 1:
            return None if self._width == 1 else "causal"
        rows = self.offsets[:, None, None, None] + mx.arange(self._width)[None, None, :, None]
        return mx.arange(self._size)[None, None, None, :] <= rows


class LayerCache:
    """One layer's cache, as mlx-lm's models use theirs."""

    def __init__(self, group: GroupPass, layer: int) -> None:
        self._group = group
        self._layer = layer

    @property
    def offset(self) -> mx.array:
        return self._group.offsets

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        return self._group.update(self._layer, keys, values)

    def make_mask(
        self, num_tokens: int, return_array: bool = False, window_size: int | None = None
    ) -> mx.array | str | None:
        """The same for every layer: no model here has layers with windows of their own."""
        assert not return_array and window_size is None
        return self._group.mask
