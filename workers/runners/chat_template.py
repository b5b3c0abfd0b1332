"""Which chat template a model speaks with."""

from pathlib import Path

from workers.runners.base import RunnerError


def choose_template(own: str | None, override: str | None) -> str | None:
    """Jinja source: the setting, which is the text itself or a file's path, before the model's own.

    None when there is neither. Raises RunnerError for a file that cannot be read.
    """
    if not override:
        return own or None
    if "{{" in override or "{%" in override:
        return override
    path = Path(override).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunnerError(
            f"chat_template {override!r} is neither a Jinja template nor a readable file: {error}"
        ) from error
