"""A handle's keys and values as bytes: a header, then each layer's keys and values as they lie in memory."""

import struct

import mlx.core as mx
import numpy as np

from workers.runners.mlx.sequence_kv import KvLayout, SequenceKv

_HEADER = struct.Struct("<8s8sIIII")
_MAGIC = b"ifmlxkv1"


def to_bytes(sequence: SequenceKv, layout: KvLayout) -> bytes:
    parts = [_header(layout, sequence.length)]
    if sequence.length == 0:
        return parts[0]
    for layer in range(layout.num_layers):
        for array in sequence.arrays(layer):
            parts.append(np.asarray(mx.contiguous(array[:, :, : sequence.length]).view(mx.uint8)).tobytes())
    return b"".join(parts)


def from_bytes(data: bytes, num_tokens: int, layout: KvLayout) -> SequenceKv | None:
    """None for bytes of another version, layout or length."""
    if data[: _HEADER.size] != _header(layout, num_tokens):
        return None
    if len(data) != _HEADER.size + num_tokens * layout.bytes_per_token:
        return None
    sequence = SequenceKv(layout)
    if num_tokens == 0:
        return sequence
    shape = (layout.num_layers, 2, 1, layout.num_kv_heads, num_tokens, layout.head_dim * layout.dtype.size)
    body = np.frombuffer(data, np.uint8, offset=_HEADER.size).reshape(shape)
    arrays: list[mx.array] = []
    for layer in range(layout.num_layers):
        keys, values = (mx.array(part).view(layout.dtype) for part in body[layer])
        sequence.write(layer, keys, values)
        arrays.extend(sequence.arrays(layer))
    mx.eval(arrays)
    sequence.length = num_tokens
    return sequence


def _header(layout: KvLayout, num_tokens: int) -> bytes:
    dtype = str(layout.dtype).removeprefix("mlx.core.").encode()[:8]
    return _HEADER.pack(_MAGIC, dtype, layout.num_layers, layout.num_kv_heads, layout.head_dim, num_tokens)
