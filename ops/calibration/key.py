"""All that a verdict depends on. When any of it is another, it is measured again."""

import hashlib
import importlib.metadata
import platform
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ops.serving.machine import LIBRARIES
from ops.serving.sources import Source, SourceKind
from ops.settings.settings import ModelSettings
from workers.runners.devices import Device
from workers.runners.machine import num_processors, processor
from workers.runners.model_files import model_files
from workers.runners.registry import known_backends

_SEQUENCES_PER_THREAD = 8
_MIN_SEQUENCES, _MAX_SEQUENCES = 8, 32


class Key(BaseModel):
    """`backends` are those to choose among, with what is installed of each. `context` 0: not said."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str
    processor: str
    features: str
    processors: int
    device: str
    system: str
    backends: dict[str, str]
    options: dict[str, int | str | None]
    context: int
    sequences: int

    def digest(self) -> str:
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:24]

    def is_similar(self, other: "Key") -> bool:
        """The same model on the same machine, for another load."""
        of_the_load = ("options", "context", "sequences")
        return self.model_dump(exclude=set(of_the_load)) == other.model_dump(exclude=set(of_the_load))


def key_of(model: ModelSettings, source: Source, backends: Sequence[str], device: Device) -> Key:
    """Raises OSError when the files are gone."""
    here = processor()
    return Key(
        model=_identity(source),
        processor=here.name,
        features=_digest(sorted(here.flags)),
        processors=num_processors(),
        device=str(device),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        backends={backend: installed(backend) for backend in sorted(backends)},
        options={
            "kv_type": model.kv_type,
            "gpu_layers": model.gpu_layers,
            "batch_tokens": model.batch_tokens,
            "threads": model.threads,
        },
        context=0 if model.context is None else _class(model.context),
        sequences=_class(sequences_of(model, device)),
    )


def sequences_of(model: ModelSettings, device: Device) -> int:
    """How many at once to measure: as configured, else what backends take by themselves."""
    if model.sequences is not None:
        return model.sequences
    if device is not Device.CPU:
        return _MAX_SEQUENCES
    threads = model.threads or num_processors()
    return min(max(threads * _SEQUENCES_PER_THREAD, _MIN_SEQUENCES), _MAX_SEQUENCES)


@cache
def installed(backend: str) -> str:
    """The version of a backend's library, with digests of what is installed of it and of our own code for it."""
    try:
        distribution = importlib.metadata.distribution(LIBRARIES[backend])
    except importlib.metadata.PackageNotFoundError:  # not installed by pip
        return f"unknown {_code(backend)}"
    record = _digest([distribution.read_text("RECORD") or ""])
    return f"{distribution.version} {record} {_code(backend)}"


def weight_files(source: Source) -> list[Path]:
    path = Path(source.location)
    if source.kind is SourceKind.FOLDER:
        return sorted([*path.glob("*.safetensors"), path / "config.json"])
    return model_files(path)


def _identity(source: Source) -> str:
    """Changes when a file was replaced or written to, without reading it."""
    stats = [(str(file.resolve()), file.stat()) for file in weight_files(source)]
    return ";".join(f"{name}:{stat.st_size}:{stat.st_mtime_ns}" for name, stat in stats)


def _code(backend: str) -> str:
    """Kernels included, which are compiled from it."""
    spec = find_spec(known_backends()[backend].module)
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".cpp", ".h", ".inc"))
    return _digest(file.read_text() for file in files)


def _class(number: int) -> int:
    """The next power of two: loads of about one size share a verdict."""
    return 1 << (number - 1).bit_length()


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
