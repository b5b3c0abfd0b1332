"""About how much memory a model will take, told from its files before anything is loaded."""

from pathlib import Path

from ops.serving.gguf_header import read_header
from ops.serving.sources import Source, SourceKind
from ops.settings.settings import ModelSettings
from workers.runners.model_files import total_bytes

_ARCHITECTURE = "general.architecture"
_NUMBERS = ("block_count", "embedding_length", "attention.head_count", "attention.head_count_kv", "context_length")
# What the backends take where the settings say nothing; the smaller of theirs, as they make do with less.
_CONTEXT = 2048
_SEQUENCES = 8
_BYTES_PER_ELEMENT = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
# Echo keeps token ids.
_ECHO_BYTES_PER_TOKEN = 4


def estimate(model: ModelSettings, source: Source) -> int:
    """Bytes of weights and KV; of a folder the weights alone. 0 where the files do not say. Raises OSError."""
    tokens = (model.context or _CONTEXT) * (model.sequences or _SEQUENCES)
    if source.kind is SourceKind.ECHO:
        return tokens * _ECHO_BYTES_PER_TOKEN
    path = Path(source.location)
    if source.kind is SourceKind.FOLDER:
        return sum(file.stat().st_size for file in path.glob("*.safetensors"))
    per_element = _BYTES_PER_ELEMENT[model.kv_type or "f16"]
    return total_bytes(path) + round(_elements_per_token(path) * per_element * tokens)


def _elements_per_token(path: Path) -> int:
    """Keys and values of one token over all layers; 0 where the header is another one."""
    architecture = read_header(path, {_ARCHITECTURE}).get(_ARCHITECTURE)
    found = read_header(path, {f"{architecture}.{name}" for name in _NUMBERS})
    layers, width, heads, kv_heads, _ = (found.get(f"{architecture}.{name}") for name in _NUMBERS)
    if not isinstance(layers, int) or not isinstance(width, int) or not isinstance(heads, int) or heads < 1:
        return 0
    return layers * 2 * (width // heads) * (kv_heads if isinstance(kv_heads, int) else heads)
