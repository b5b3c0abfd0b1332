"""Tiny GGUF files of our own: format version 3, little-endian, F32 tensors."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

Value = str | int | float | bool | list[str] | list[int] | list[float]

_ALIGNMENT = 32
_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_F32 = 0

SENTENCEPIECE_WORDS = ["▁the", "▁Paris", "▁is", "the", "is", "in", "▁", *"abcdefghijklmnopqrstuvwxyzP.,!?é"]
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6


class Quantised(NamedTuple):
    """A tensor of another type: the bytes of its rows, and what they stand for."""

    shape: tuple[int, ...]
    type_id: int
    rows: np.ndarray


def write_gguf(path: Path, metadata: Mapping[str, Value], tensors: Mapping[str, np.ndarray | Quantised]) -> Path:
    """Write a file. Tensors are given as numpy has them, row by row; the format counts dimensions from the inside."""
    head = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
    for key, value in metadata.items():
        head += _string(key) + _typed(value)
    body = bytearray()
    for name, tensor in tensors.items():
        if not isinstance(tensor, Quantised):
            tensor = Quantised(tensor.shape, _F32, tensor.astype("<f4"))
        dimensions = tensor.shape[::-1]
        layout = len(dimensions), *dimensions, tensor.type_id, len(body)
        head += _string(name) + struct.pack(f"<I{len(dimensions)}QIQ", *layout)
        body += _padded(tensor.rows.tobytes())
    path.write_bytes(_padded(bytes(head)) + bytes(body))
    return path


def write_tiny_model(path: Path, *, seed: int = 1, **overrides: Value) -> Path:
    """A Llama of two layers with random weights and a SentencePiece vocabulary: byte fallback, a BOS, an end of turn.

    `overrides` replace metadata, dots written as double underscores; an empty text removes the key.
    """
    metadata = {**_tiny_metadata(), **{key.replace("__", "."): value for key, value in overrides.items()}}
    metadata = {key: value for key, value in metadata.items() if value != ""}
    return write_gguf(path, metadata, _tiny_tensors(np.random.default_rng(seed), len(_vocabulary())))


def _tiny_metadata() -> dict[str, Value]:
    tokens, scores, kinds = zip(*_vocabulary(), strict=True)
    return {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "llama.context_length": 2048,
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 96,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": list(tokens),
        "tokenizer.ggml.scores": list(scores),
        "tokenizer.ggml.token_type": list(kinds),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def _vocabulary() -> list[tuple[str, float, int]]:
    special = [("<unk>", 0.0, _UNKNOWN), ("<s>", 0.0, _CONTROL), ("</s>", 0.0, _CONTROL)]
    special += [("<|im_end|>", 0.0, _CONTROL), ("<tool>", 0.0, _USER_DEFINED)]
    bytes_ = [(f"<0x{byte:02X}>", 0.0, _BYTE) for byte in range(256)]
    words = [(word, float(-rank), _NORMAL) for rank, word in enumerate(SENTENCEPIECE_WORDS)]
    return special + bytes_ + words


def _tiny_tensors(random: np.random.Generator, vocab_size: int) -> dict[str, np.ndarray]:
    def matrix(rows: int, columns: int) -> np.ndarray:
        return random.normal(0, 1.5 / np.sqrt(columns), (rows, columns))

    tensors = {"token_embd.weight": random.normal(0, 1, (vocab_size, 64)), "output_norm.weight": np.ones(64)}
    tensors["output.weight"] = matrix(vocab_size, 64)
    for layer in range(2):
        shapes = {"attn_q": (64, 64), "attn_k": (32, 64), "attn_v": (32, 64), "attn_output": (64, 64)}
        shapes |= {"ffn_gate": (96, 64), "ffn_up": (96, 64), "ffn_down": (64, 96)}
        tensors |= {f"blk.{layer}.{name}.weight": matrix(*shape) for name, shape in shapes.items()}
        tensors |= {f"blk.{layer}.{name}.weight": np.ones(64) for name in ("attn_norm", "ffn_norm")}
    return tensors


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _typed(value: Value) -> bytes:
    if isinstance(value, list):
        kind, _ = _scalar(value[0])
        kind = _INT32 if kind == _UINT32 else kind
        return struct.pack("<IIQ", _ARRAY, kind, len(value)) + b"".join(_scalar(item)[1] for item in value)
    kind, data = _scalar(value)
    return struct.pack("<I", kind) + data


def _scalar(value: object) -> tuple[int, bytes]:
    match value:
        case bool():
            return _BOOL, struct.pack("<?", value)
        case int():
            return _UINT32, struct.pack("<I", value)
        case float():
            return _FLOAT32, struct.pack("<f", value)
        case str():
            return _STRING, _string(value)
        case _:
            raise TypeError(type(value))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)
