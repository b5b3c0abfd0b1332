"""A model in a folder with safetensors, as hubs keep it."""

from pathlib import Path

from workers.checkpoints.checkpoint import Parts
from workers.checkpoints.digest import content_digest
from workers.checkpoints.folder_config import read_folder_config
from workers.checkpoints.folder_vocabulary import TOKENIZER, read_folder_vocabulary
from workers.checkpoints.folder_weights import INDEX, open_weights, weight_files
from workers.checkpoints.json_file import read_json_if_there
from workers.checkpoints.shapes import check_shapes
from workers.runners.base import RunnerError
from workers.runners.remembered import Remembered

CONFIG = "config.json"
_TEMPLATE = "chat_template.jinja"
# Whatever a sequence depends on.
_SMALL_FILES = (
    CONFIG,
    "generation_config.json",
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    _TEMPLATE,
    INDEX,
)


def open_folder(folder: Path, remembered: Remembered) -> Parts:
    """Raises RunnerError with the reason in one line."""
    if not (folder / CONFIG).is_file():
        raise RunnerError(f"{folder}: a folder without {CONFIG} is no model")
    weights = open_weights(folder)
    shapes = weights.shapes()
    config = read_folder_config(folder / CONFIG, shapes)
    weights.restrict(check_shapes(folder, config, shapes))
    tokenizer = read_folder_vocabulary(folder, config.vocab_size)
    files = [folder / name for name in _SMALL_FILES if (folder / name).is_file()] + weight_files(folder)
    description = f"{folder.resolve().name}, {weights.dtype}"
    return Parts(
        config, tokenizer, _chat_template(folder), weights, description, lambda: content_digest(files, remembered)
    )


def _chat_template(folder: Path) -> str | None:
    path = folder / _TEMPLATE
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8") or None
        except (OSError, UnicodeDecodeError) as error:
            raise RunnerError(f"cannot read {path}: {error}") from error
    template = read_json_if_there(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):
        # Several by name, for different uses.
        template = next((each["template"] for each in template if each.get("name") == "default"), None)
    return template or None
