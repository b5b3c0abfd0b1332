"""The keys and values of one handle."""

from typing import NamedTuple

import mlx.core as mx

# Room is added in this many tokens, so that most steps write into arrays that are there.
PAGE = 256


class KvLayout(NamedTuple):
    """`dtype` is how keys and values are kept, `compute_dtype` how the model wants them."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: mx.Dtype
    compute_dtype: mx.Dtype

    @property
    def bytes_per_token(self) -> int:
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * int(self.dtype.size)


def page_up(num_tokens: int) -> int:
    """The room that so many tokens take."""
    return -(-num_tokens // PAGE) * PAGE


class SequenceKv:
    """An array of keys and one of values per layer: (1, KV heads, room, head size).

    `length` is what holds; `write` goes beyond it, and what it wrote counts once the caller moves `length`. Arrays are
    lazy: after `write` the caller evaluates `arrays`, or the graphs behind them grow with each step.
    """

    def __init__(self, layout: KvLayout) -> None:
        self._layout = layout
        self._keys = [self._empty(0) for _ in range(layout.num_layers)]
        self._values = [self._empty(0) for _ in range(layout.num_layers)]
        self.length = 0

    def arrays(self, layer: int) -> tuple[mx.array, mx.array]:
        return self._keys[layer], self._values[layer]

    def write(self, layer: int, keys: mx.array, values: mx.array) -> None:
        """Put (1, KV heads, n, head size) behind `length`."""
        start, end = self.length, self.length + keys.shape[2]
        for held, new in ((self._keys, keys), (self._values, values)):
            missing = page_up(end) - held[layer].shape[2]
            if missing > 0:
                held[layer] = mx.concatenate([held[layer], self._empty(missing)], axis=2)
            held[layer][:, :, start:end] = new.astype(self._layout.dtype)

    def read(self, layer: int, num_tokens: int) -> tuple[mx.array, mx.array]:
        """The first so many tokens, written or not."""
        return self._read(self._keys[layer], num_tokens), self._read(self._values[layer], num_tokens)

    def truncate(self, num_tokens: int) -> None:
        """Forget what comes after, and the room beyond."""
        self.length = num_tokens
        room = page_up(num_tokens)
        if all(array.shape[2] <= room for array in (*self._keys, *self._values)):
            return
        self._keys, self._values = self._cut(self._keys, room), self._cut(self._values, room)
        mx.eval(self._keys, self._values)

    def copy(self, num_tokens: int) -> "SequenceKv":
        """The first so many tokens in arrays of their own."""
        copy, room = SequenceKv(self._layout), page_up(num_tokens)
        copy._keys, copy._values = self._cut(self._keys, room), self._cut(self._values, room)
        mx.eval(copy._keys, copy._values)
        copy.length = num_tokens
        return copy

    def _cut(self, arrays: list[mx.array], room: int) -> list[mx.array]:
        return [mx.contiguous(array[:, :, :room]) if room else self._empty(0) for array in arrays]

    def _read(self, array: mx.array, num_tokens: int) -> mx.array:
        missing = num_tokens - array.shape[2]
        if missing > 0:
            array = mx.concatenate([array, self._empty(missing)], axis=2)
        return array[:, :, :num_tokens].astype(self._layout.compute_dtype)

    def _empty(self, num_tokens: int) -> mx.array:
        layout = self._layout
        return mx.zeros((1, layout.num_kv_heads, num_tokens, layout.head_dim), layout.dtype)
