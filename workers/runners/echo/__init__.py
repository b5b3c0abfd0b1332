"""A model without weights: for tests, demos and measuring everything around a model."""

from workers.runners.echo.runner import EchoRunner

__all__ = ["EchoRunner"]
