"""The decoder as PyTorch operations: for every device, and every processor.

The sum that runs through the layers is float32; matrix products are of the model's precision, attention of the KV's.
"""

from dataclasses import dataclass

import torch

from workers.runners.torch.abort_flag import AbortFlag
from workers.runners.torch.attention import Heads, attend, heads_of, plan_attention
from workers.runners.torch.decoder import DecoderSizes
from workers.runners.torch.graphs import DecodeGraphs, Record, StepTensors, record_cuda
from workers.runners.torch.kv_memory import KvMemory, KvShape
from workers.runners.torch.linear import Linear, make_linear
from workers.runners.torch.precision import KvType, Precision
from workers.runners.torch.rope import RopeTable, rope_table
from workers.runners.torch.step import Step
from workers.runners.torch.weights import LayerWeights, WeightReader

_silu = torch.nn.functional.silu
_rms_norm = torch.nn.functional.rms_norm


@dataclass(frozen=True, slots=True)
class Layer:
    input_norm: torch.Tensor
    qkv: Linear
    q_norm: torch.Tensor | None
    k_norm: torch.Tensor | None
    out: Linear
    post_norm: torch.Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True, slots=True)
class Model:
    """`heads` and so on are what the functions below need of the configuration."""

    heads: Heads
    eps: float
    precision: Precision
    kv_type: KvType
    rope: RopeTable
    embedding: torch.Tensor
    layers: list[Layer]
    norm: torch.Tensor
    head: Linear


class EagerDecoder:
    """See `Decoder`."""

    layout = "16-token pages, token-major"
    is_row_exact = False
    name = "eager"

    def __init__(
        self,
        reader: WeightReader,
        precision: Precision,
        device: torch.device,
        sizes: DecoderSizes,
        kv_type: KvType | None = None,
        record: Record | None = None,
    ) -> None:
        """`kv_type` None: the precision, to which keys and values have been rounded anyhow. `record` makes a step that
        can be played back, where that is faster; None: on CUDA and nowhere else."""
        self._device = device
        self.precision = precision
        self.kv_type = kv_type or KvType(precision)
        self._model = load_model(reader, precision, self.kv_type, device, sizes)
        self._record = record or (record_cuda if device.type == "cuda" else None)
        self._graphs: DecodeGraphs | None = None
        self.kv_shape = KvShape(reader.config.num_layers, self._model.heads.page_elements, self.kv_type.dtype)

    def stage_seconds(self) -> dict[str, float]:
        return {}

    def run(self, step: Step, memory: KvMemory, abort_flag: AbortFlag) -> torch.Tensor | None:
        if self._record is not None:
            self._graphs = self._graphs or self._make_graphs(memory, self._record)
            size = self._graphs.size_of(step)
            if size is not None:
                return self._graphs.run(step, size)
        return decode(self._model, to_device(step, self._model, self._device), memory, abort_flag)

    def _make_graphs(self, memory: KvMemory, record: Record) -> DecodeGraphs:
        """A recorded step is a single decode: short enough not to be aborted."""

        def compute(tensors: StepTensors) -> torch.Tensor:
            logits = decode(self._model, tensors, memory, AbortFlag())
            assert logits is not None
            return logits

        return DecodeGraphs(compute, self._model.rope, self.kv_type.dtype, memory.spare_page, record)


def load_model(
    reader: WeightReader, precision: Precision, kv_type: KvType, device: torch.device, sizes: DecoderSizes
) -> Model:
    config = reader.config
    embedding = reader.embedding()
    return Model(
        heads=heads_of(config),
        eps=config.rms_norm_eps,
        precision=precision,
        kv_type=kv_type,
        rope=rope_table(config, sizes.context, device),
        embedding=embedding,
        layers=[_layer(weights) for weights in reader.layers()],
        norm=reader.norm(),
        head=make_linear(reader.head(embedding, sizes.vocab_size), None),
    )


def to_device(step: Step, model: Model, device: torch.device) -> StepTensors:
    def index(rows: object) -> torch.Tensor:
        return torch.as_tensor(rows, dtype=torch.int64, device=device)

    positions = index(step.positions)
    return StepTensors(
        tokens=index(step.tokens),
        cos=model.rope.cos.index_select(0, positions)[:, None],
        sin=model.rope.sin.index_select(0, positions)[:, None],
        slots=index(step.slots),
        groups=plan_attention(step, model.kv_type.dtype, device),
        logit_rows=index(step.logit_rows),
    )


def decode(model: Model, step: StepTensors, memory: KvMemory, abort_flag: AbortFlag) -> torch.Tensor | None:
    """Float32 logits of the rows asked for; None when aborted, which is polled between layers."""
    x = model.embedding.index_select(0, step.tokens).float()
    for layer, keys, values in zip(model.layers, memory.keys, memory.values, strict=True):
        if abort_flag.is_set:
            return None
        x += _attention_block(model, layer, x, step, keys, values)
        x += _mlp_block(model, layer, x)
    rows = x.index_select(0, step.logit_rows)
    return model.head(_norm(rows, model.norm, model)).float()


def _attention_block(
    model: Model, layer: Layer, x: torch.Tensor, step: StepTensors, keys: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    heads = model.heads
    num_rows, width, kv_width = x.shape[0], heads.num_heads * heads.head_dim, heads.num_kv_heads * heads.head_dim
    qkv = layer.qkv(_norm(x, layer.input_norm, model))
    if layer.q_norm is None:
        unturned = qkv[:, : width + kv_width].view(num_rows, -1, heads.head_dim)
    else:
        unturned = _normed_heads(model, layer, qkv, width, kv_width)
    turned = _rotate(unturned, step).to(model.kv_type.dtype)
    turned = turned.view(num_rows, width + kv_width)
    _by_slot(keys, kv_width).index_copy_(0, step.slots, turned[:, width:])
    _by_slot(values, kv_width).index_copy_(0, step.slots, qkv[:, width + kv_width :].to(values.dtype))
    attended = attend(turned[:, :width], keys, values, step.groups, heads)
    return layer.out(attended.to(model.precision.dtype))


def _mlp_block(model: Model, layer: Layer, x: torch.Tensor) -> torch.Tensor:
    gate, up = layer.gate_up(_norm(x, layer.post_norm, model)).chunk(2, dim=-1)
    return layer.down(_silu(gate) * up)


def _norm(x: torch.Tensor, weight: torch.Tensor, model: Model) -> torch.Tensor:
    return _rms_norm(x, weight.shape, weight, model.eps).to(model.precision.dtype)


def _normed_heads(model: Model, layer: Layer, qkv: torch.Tensor, width: int, kv_width: int) -> torch.Tensor:
    assert layer.q_norm is not None and layer.k_norm is not None
    head_dim = model.heads.head_dim
    query = qkv[:, :width].reshape(len(qkv), -1, head_dim).float()
    key = qkv[:, width : width + kv_width].reshape(len(qkv), -1, head_dim).float()
    query = _rms_norm(query, (head_dim,), layer.q_norm, model.eps)
    key = _rms_norm(key, (head_dim,), layer.k_norm, model.eps)
    return torch.cat((query, key), dim=1).to(model.precision.dtype)


def _rotate(x: torch.Tensor, step: StepTensors) -> torch.Tensor:
    """Float32."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * step.cos - second * step.sin, second * step.cos + first * step.sin), dim=-1)


def _by_slot(pages: torch.Tensor, kv_width: int) -> torch.Tensor:
    return pages.view(-1, kv_width)


def _layer(weights: LayerWeights) -> Layer:
    return Layer(
        input_norm=weights.input_norm,
        qkv=make_linear(weights.qkv, weights.qkv_bias),
        q_norm=weights.q_norm,
        k_norm=weights.k_norm,
        out=make_linear(weights.out, None),
        post_norm=weights.post_norm,
        gate_up=make_linear(weights.gate_up, None),
        down=make_linear(weights.down, None),
    )
