"""The seam between the harness and the servers under test."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from ops.bench.connection import Target


class Process(Protocol):
    """How a server's process is asked why an answer of it broke."""

    async def has_ended(self, within_s: float = 1.0) -> bool:
        """Whether it ended, or does so within that time."""

    def failure(self) -> str:
        """How it ended and its last words, in one line."""


class Server(NamedTuple):
    """A running server. `processes` are those whose processor time is told, `facts` what it says about itself."""

    target: Target
    process: Process
    processes: Mapping[str, int]
    facts: Mapping[str, str]


class Arm(Protocol):
    """One server under test, started anew for every turn."""

    @property
    def name(self) -> str: ...

    @property
    def num_repeats(self) -> int:
        """How many times the usual number of requests it is given; above 1 for one that answers very quickly."""

    @property
    def has_model_tokens(self) -> bool:
        """Whether it counts in tokens of the model."""

    def check(self) -> None:
        """Raises ArmUnavailable when it cannot be measured here."""

    def describe(self) -> dict[str, str]:
        """Version, settings and what a reader of its figures must know. Only after `check`."""

    def running(self, folder: Path) -> AbstractAsyncContextManager[Server]:
        """Start it with its files in `folder`, an empty directory, and end it with the block. Raises ArmFailed."""
