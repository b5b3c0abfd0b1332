"""A model in one GGUF file, or in the parts that a large one is split into."""

import hashlib
from dataclasses import replace
from pathlib import Path

from workers.checkpoints.checkpoint import Parts
from workers.checkpoints.digest import content_digest
from workers.checkpoints.gguf_config import factor_scaling, read_config
from workers.checkpoints.gguf_vocabulary import read_vocabulary
from workers.checkpoints.gguf_weights import GgufFile, GgufWeights
from workers.checkpoints.requirements import need
from workers.checkpoints.shapes import check_shapes
from workers.runners.model_files import model_files
from workers.runners.remembered import Remembered

_FACTORS = "rope_freqs.weight"


def open_gguf(path: Path, remembered: Remembered) -> Parts:
    """Raises RunnerError with the reason in one line."""
    paths = model_files(path)
    files = [GgufFile(file) for file in paths]
    metadata = files[0].header.metadata
    tensors = {name: entry for file in files for name, entry in file.header.tensors.items()}
    config = read_config(path, metadata, tensors)
    weights = GgufWeights(files)
    shapes = weights.shapes()
    if _FACTORS in shapes:
        del shapes[_FACTORS]
        config = replace(config, rope_scaling=factor_scaling(path, config, weights.read(_FACTORS)))
    weights.restrict(check_shapes(path, config, shapes), config)
    tokenizer = read_vocabulary(path, metadata, config.vocab_size)
    template = metadata.get("tokenizer.chat_template") or None

    def digest() -> str:
        parts = [content_digest(paths, remembered), template or ""]
        return hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest()

    return Parts(config, tokenizer, template, weights, _description(path, metadata), digest)


def _description(path: Path, metadata: dict[str, object]) -> str:
    name = str(metadata.get("general.name") or path.stem)
    try:
        kind = need("gguf").LlamaFileType(metadata.get("general.file_type")).name.removeprefix("MOSTLY_")
    except ValueError:
        return name
    return f"{name}, {kind.removeprefix('ALL_')}"
