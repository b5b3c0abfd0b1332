"""Which chat template a model speaks with."""

from pathlib import Path

from workers.runners.base import RunnerError
from workers.runners.llama_cpp.model import LlamaModel


def chat_template(model: LlamaModel, override: str | None) -> str | None:
    """Jinja source: the setting, which is the text itself or a file's path, before the one in the model file.

    None when there is neither. Raises RunnerError for a file that cannot be read.
    """
    if not override:
        return model.metadata("tokenizer.chat_template") or None
    if "{{" in override or "{%" in override:
        return override
    path = Path(override).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunnerError(
            f"chat_template {override!r} is neither a Jinja template nor a readable file: {error}"
        ) from error
