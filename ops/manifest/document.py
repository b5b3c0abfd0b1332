"""What stands in a manifest: `models`, in the same form as in the configuration, as YAML or JSON."""

import json
from pathlib import Path

from ops.settings.errors import SettingsError
from ops.settings.models import read_model_set
from ops.settings.settings import ModelSettings
from ops.settings.yaml_file import ConfigFile


class ManifestUnusable(Exception):
    """Why it cannot be used, in one line that names the place."""


def read_manifest(path: Path) -> tuple[ModelSettings, ...]:
    """The models that it wants. Raises ManifestUnusable, also for a file without a list: that is half of one."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ManifestUnusable(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ManifestUnusable(f"{path}: it is not text") from None
    try:
        return _read(path, _as_yaml(text))
    except SettingsError as error:
        raise ManifestUnusable(str(error)) from None


def _read(path: Path, text: str) -> tuple[ModelSettings, ...]:
    file = ConfigFile(path, text, is_manifest=True)
    for key, given in file.values.items():
        raise SettingsError(f"{key} ({given.origin}): nothing but models can stand in a manifest")
    if not file.has_models:
        raise SettingsError(f"{path.name}: there is no list of models in it; `models: []` unloads all")
    return read_model_set(file.models)


def _as_yaml(text: str) -> str:
    """JSON is YAML, but for tabs between its signs."""
    if "\t" not in text:
        return text
    try:
        json.loads(text)
    except ValueError:
        return text
    return text.replace("\t", " ")
