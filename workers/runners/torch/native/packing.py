"""A model's weights as the kernel reads them, by name."""

from collections.abc import Callable, Iterator

import torch

from workers.checkpoints import ModelConfig
from workers.runners.torch.native.library import KernelLibrary
from workers.runners.torch.native.weight_cache import WeightCache
from workers.runners.torch.native.weight_file import Array, Weights
from workers.runners.torch.weights import LayerWeights, WeightReader

PANEL = 32
# To be raised when what is packed here changes; the kernel's source counts by itself.
_FORMAT = 1
# Smaller models are packed in no time.
_LEAST_PARAMETERS = 2**23

Pack = Callable[[str, torch.Tensor], Iterator[tuple[str, Array]]]


def packed_weights(reader: WeightReader, vocab_size: int, library: KernelLibrary, cache: WeightCache) -> Weights:
    """Every matrix as `name.panels` and `name.units`, and vectors, of layers with the layer's number before. Out of the
    cache where they are there."""

    def pack() -> Iterator[tuple[str, Array]]:
        return _pack_model(reader, vocab_size, library)

    if not _is_worth_keeping(reader.config):
        return dict(pack())
    return cache.get_or_pack((reader.content, library.name, str(_FORMAT), str(vocab_size)), pack)


def _is_worth_keeping(config: ModelConfig) -> bool:
    return config.num_layers * config.hidden_size * config.intermediate_size >= _LEAST_PARAMETERS


def _pack_model(reader: WeightReader, vocab_size: int, library: KernelLibrary) -> Iterator[tuple[str, Array]]:
    embedding = reader.embedding().contiguous()
    yield "embedding", embedding.view(torch.int16).numpy()
    yield "norm", reader.norm().numpy()
    yield from _pack_matrix(library, "head", reader.head(embedding, vocab_size))
    for number, weights in enumerate(reader.layers()):
        for name, array in _pack_layer(library, weights):
            yield f"{number}.{name}", array


def _pack_layer(library: KernelLibrary, weights: LayerWeights) -> Iterator[tuple[str, Array]]:
    yield "input_norm", weights.input_norm.numpy()
    yield from _pack_matrix(library, "qkv", weights.qkv)
    for name, vector in (("qkv_bias", weights.qkv_bias), ("q_norm", weights.q_norm), ("k_norm", weights.k_norm)):
        if vector is not None:
            yield name, vector.float().numpy()
    yield from _pack_matrix(library, "out", weights.out)
    yield "post_norm", weights.post_norm.numpy()
    yield from _pack_matrix(library, "gate_up", _gates_by_panel(weights.gate_up))
    yield from _pack_matrix(library, "down", weights.down)


def _gates_by_panel(gate_up: torch.Tensor) -> torch.Tensor:
    """Half a panel of gates, then the half of what they let through."""
    return gate_up.view(2, -1, PANEL // 2, gate_up.shape[1]).transpose(0, 1).reshape(gate_up.shape)


def _pack_matrix(library: KernelLibrary, name: str, matrix: torch.Tensor) -> Iterator[tuple[str, Array]]:
    matrix = matrix.contiguous()
    num_out, num_in = matrix.shape
    # PyTorch's memory begins on a cache line, as the kernel's loads should.
    panels = torch.empty((-(-num_out // PANEL), num_in, PANEL), dtype=torch.int16)
    units = torch.empty(num_out, dtype=torch.float32)
    library.pack(matrix.data_ptr(), num_out, num_in, panels.data_ptr(), units.data_ptr())
    yield f"{name}.panels", panels.numpy()
    yield f"{name}.units", units.numpy()
