"""Packages that the base install does not have."""

from importlib import import_module
from typing import Any

from workers.runners.base import RunnerError

INSTALL = "pip install -c constraints.txt -e '.[torch]'"


def need(module: str) -> Any:
    """The module. Raises RunnerError that says how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise RunnerError(f"reading model files needs the package {package} ({error}); run: {INSTALL}") from error
