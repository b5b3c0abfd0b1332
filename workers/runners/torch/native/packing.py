"""A model's weights as the kernel reads them, by name."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from workers.checkpoints import ModelConfig
from workers.checkpoints.blocks import BLOCK, Blocks
from workers.runners.torch.native.library import PANEL, KernelLibrary, MatrixFormat
from workers.runners.torch.native.weight_cache import WeightCache
from workers.runners.torch.native.weight_file import Array, Weights
from workers.runners.torch.weights import MATRICES, WeightReader

# To be raised when what is packed here changes; the kernel's source counts by itself.
_FORMAT = 2
# Smaller models are packed in no time.
_LEAST_PARAMETERS = 2**23


def packed_weights(
    reader: WeightReader, vocab_size: int, library: KernelLibrary, cache: WeightCache, *, has_blocks: bool
) -> Weights:
    """Every matrix as `name.panels`, with `name.units` where its numbers have 16 bits, and vectors; of layers with the
    layer's number before. Out of the cache where they are there.

    `has_blocks`: matrices that the checkpoint has in blocks stay in them.
    """

    def pack() -> Iterator[tuple[str, Array]]:
        return _Packer(reader, library, has_blocks=has_blocks).pack(vocab_size)

    if not _is_worth_keeping(reader.config):
        return dict(pack())
    arithmetic = "blocks" if has_blocks else "words"
    return cache.get_or_pack((reader.content, library.name, str(_FORMAT), str(vocab_size), arithmetic), pack)


def matrix_format(weights: Weights, name: str) -> MatrixFormat:
    """How the numbers of a packed matrix are stored."""
    return MatrixFormat(int(weights[f"{name}.format"].view(np.int32)[0]))


def _is_worth_keeping(config: ModelConfig) -> bool:
    return config.num_layers * config.hidden_size * config.intermediate_size >= _LEAST_PARAMETERS


class _Packer:
    def __init__(self, reader: WeightReader, library: KernelLibrary, *, has_blocks: bool) -> None:
        self._reader = reader
        self._library = library
        self._has_blocks = has_blocks

    def pack(self, vocab_size: int) -> Iterator[tuple[str, Array]]:
        reader = self._reader
        embedding = reader.embedding().contiguous()
        yield "embedding", embedding.view(torch.int16).numpy()
        yield "norm", reader.norm().numpy()
        blocks = reader.head_blocks(vocab_size) if self._has_blocks else None
        yield from self._pack("head", blocks, lambda: reader.head(embedding, vocab_size))
        for layer in range(reader.config.num_layers):
            for name, vector in reader.vectors(layer).items():
                if vector is not None:
                    yield f"{layer}.{name}", vector.float().numpy()
            for name in MATRICES:
                yield from self._pack_layer(layer, name)

    def _pack_layer(self, layer: int, name: str) -> Iterator[tuple[str, Array]]:
        blocks = self._reader.blocks(layer, name) if self._has_blocks else None
        is_gated = name == "gate_up"
        if blocks is not None and is_gated:
            blocks = blocks.rows(_gates_by_panel(len(blocks.numbers)))

        def matrix() -> torch.Tensor:
            whole = self._reader.matrix(layer, name)
            return whole[torch.from_numpy(_gates_by_panel(len(whole)))] if is_gated else whole

        yield from self._pack(f"{layer}.{name}", blocks, matrix)

    def _pack(
        self, name: str, blocks: Blocks | None, matrix: Callable[[], torch.Tensor]
    ) -> Iterator[tuple[str, Array]]:
        if blocks is None:
            yield from self._pack_words(name, matrix().contiguous())
        else:
            yield from self._pack_blocks(name, blocks)

    def _pack_words(self, name: str, matrix: torch.Tensor) -> Iterator[tuple[str, Array]]:
        num_out, num_in = matrix.shape
        # PyTorch's memory begins on a cache line, as the kernel's loads should.
        panels = torch.empty((-(-num_out // PANEL), num_in, PANEL), dtype=torch.int16)
        units = torch.empty(num_out, dtype=torch.float32)
        self._library.pack_words(matrix.data_ptr(), num_out, num_in, panels.data_ptr(), units.data_ptr())
        yield f"{name}.panels", panels.numpy()
        yield f"{name}.units", units.numpy()
        yield f"{name}.format", np.array([MatrixFormat.WORDS], np.int32)

    def _pack_blocks(self, name: str, blocks: Blocks) -> Iterator[tuple[str, Array]]:
        num_out, num_in = blocks.numbers.shape
        form = MatrixFormat.NIBBLES if blocks.bits <= 4 else MatrixFormat.BYTES
        size = form.block_bytes * num_in // BLOCK * -(-num_out // PANEL)
        panels = torch.empty(size, dtype=torch.uint8)
        parts = [np.ascontiguousarray(part) for part in (blocks.numbers, blocks.scales, blocks.minima)]
        self._library.pack_blocks(*(part.ctypes.data for part in parts), num_out, num_in, form, panels.data_ptr())
        yield f"{name}.panels", panels.numpy()
        yield f"{name}.format", np.array([form], np.int32)


def _gates_by_panel(num_out: int) -> npt.NDArray[np.int64]:
    """Of gates and what they let through, one behind the other: half a panel of these, then half a panel of those."""
    return np.arange(num_out).reshape(2, -1, PANEL // 2).transpose(1, 0, 2).reshape(-1)
