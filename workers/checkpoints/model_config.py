"""What a runner has to know to compute a model."""

from dataclasses import dataclass

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True, slots=True)
class LinearScaling:
    """Positions count for less: each is divided by `factor`."""

    factor: float


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """Slow frequencies are divided by `factor`, fast ones are left, with a ramp in between."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclass(frozen=True, slots=True)
class YarnScaling:
    """A ramp by the number of turns within the original context, and a factor on cosine and sine.

    `attention_factor` None: 0.1 ln(factor) + 1. `truncate`: the ramp begins and ends at whole pairs.
    """

    factor: float
    original_max_positions: int
    beta_fast: float
    beta_slow: float
    attention_factor: float | None
    truncate: bool = True


@dataclass(frozen=True, slots=True)
class FactorScaling:
    """Each frequency is divided by its own number, `head_dim / 2` of them: how a GGUF file stores Llama 3's rule."""

    factors: tuple[float, ...]


RopeScaling = LinearScaling | Llama3Scaling | YarnScaling | FactorScaling


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A decoder with RMSNorm, rotary positions (halves, as in transformers), grouped-query attention and SwiGLU.

    `vocab_size` is the rows of the embedding, which can be more than the tokenizer has tokens. `attention_bias`: q, k
    and v have one (o never has). `qk_norm`: RMSNorm over each head of q and k before rotation. `sliding_window`: every
    layer is computed as if a position saw the whole context; the model was trained to see this many tokens at most, so
    a sequence must not become longer (`max_context`). None when it is no limit.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: RopeScaling | None
    tie_word_embeddings: bool
    attention_bias: bool
    qk_norm: bool
    sliding_window: int | None
    max_positions: int

    @property
    def max_context(self) -> int:
        """The longest sequence that can be served, in tokens."""
        return min(self.max_positions, self.sliding_window or self.max_positions)
