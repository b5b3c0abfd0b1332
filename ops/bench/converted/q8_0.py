"""The same model in Q8_0: every matrix dequantised and quantised again."""

from pathlib import Path
from typing import Any

from ops.bench.converted.kept import kept
from ops.bench.weights import weights_format
from workers.checkpoints.requirements import need

NAME = "Q8_0"
_FILE_TYPE = "general.file_type"
_ARCHITECTURE = "general.architecture"
_BLOCK = 32


def in_q8_0(model: Path, folder: Path) -> Path:
    """The file itself where it is in Q8_0. Raises ArmUnavailable."""
    if weights_format(model) == NAME:
        return model
    stem = model.stem.removesuffix(f".{weights_format(model)}")
    return kept(folder, model, f"{stem}.{NAME}.gguf", lambda path: _write(model, path))


def _write(model: Path, path: Path) -> None:
    gguf = need("gguf")
    reader = gguf.GGUFReader(model)
    writer = gguf.GGUFWriter(path, reader.fields[_ARCHITECTURE].contents())
    for name, field in reader.fields.items():
        # The writer has these by itself.
        if not name.startswith("GGUF.") and name not in (_ARCHITECTURE, _FILE_TYPE):
            writer.add_key_value(name, field.contents(), *_types(gguf, field))
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    for tensor in reader.tensors:
        data, kind = _quantised(gguf, tensor)
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _types(gguf: Any, field: Any) -> tuple[Any, Any]:
    kind = field.types[0]
    return kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None


def _quantised(gguf: Any, tensor: Any) -> tuple[Any, Any]:
    """Vectors stay: they are not quantised in any format. The length of a row comes first."""
    kind = tensor.tensor_type
    if kind.name == NAME or len(tensor.shape) < 2 or tensor.shape[0] % _BLOCK:
        return tensor.data, kind
    wanted = gguf.GGMLQuantizationType.Q8_0
    return gguf.quants.quantize(gguf.quants.dequantize(tensor.data, kind), wanted), wanted
