"""How `up` starts its edge and workers: the same commands a person would use, with the broker's address filled in."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ops.serving.ids import new_id
from ops.settings import table
from ops.settings.setting import Setting
from ops.supervisor.child import python_command
from ops.supervisor.service import Launch

RUN_DIR = "run"
_EDGE_FLAGS = (table.CONFIG, table.HOST, table.HTTP_PORT)
_CARD_FLAGS = (table.CONFIG, table.BACKEND, table.MEMORY_BYTES)
_WORKER_FLAGS = (*_CARD_FLAGS, table.MODEL_PATH)


@dataclass(frozen=True, slots=True)
class LaunchContext:
    """What all children are told. `flags` are those of `up` itself, by flag name."""

    data_dir: Path
    nats_url: str
    credentials: Path | None
    flags: Mapping[str, str]

    def common(self) -> list[str]:
        arguments = ["--data-dir", str(self.data_dir), "--nats-url", self.nats_url, "--parent", str(os.getpid())]
        if self.credentials is not None:
            arguments += ["--nats-credentials", str(self.credentials)]
        return arguments

    def passed_on(self, rows: tuple[Setting[Any], ...]) -> list[str]:
        return [text for row in rows if row.flag in self.flags for text in (str(row.flag), self.flags[str(row.flag)])]


def edge_launcher(context: LaunchContext, known_port: Callable[[], int | None]) -> Callable[[], Launch]:
    """`known_port` is that of the edge before, so that one on a free port comes back where its clients look for it."""

    def launch() -> Launch:
        port = known_port()
        flags = context.flags if port is None else {**context.flags, str(table.HTTP_PORT.flag): str(port)}
        return _launch(replace(context, flags=flags), "edge", new_id("edge"), _EDGE_FLAGS)

    return launch


def worker_launcher(context: LaunchContext, number: int, model_id: str, *, is_configured: bool) -> Callable[[], Launch]:
    """A worker for one model: of our own configuration, or registered by somebody else."""
    which = "--only" if is_configured else "--card"

    def launch() -> Launch:
        rows = _WORKER_FLAGS if is_configured else _CARD_FLAGS
        return _launch(context, "worker", new_id(f"w{number}"), rows, "--supervised", which, model_id)

    return launch


def ready_file(data_dir: Path, command: str, process_id: str) -> Path:
    """Where a process says that it serves: `run/worker-<id>.json`, `run/edge-<id>.json`."""
    return data_dir / RUN_DIR / f"{command}-{process_id}.json"


def clear_ready_files(data_dir: Path) -> None:
    """Make the folder, and forget what processes of an earlier run said."""
    folder = data_dir / RUN_DIR
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.json"):
        path.unlink(missing_ok=True)


def _launch(
    context: LaunchContext, command: str, process_id: str, rows: tuple[Setting[Any], ...], *more: str
) -> Launch:
    path = ready_file(context.data_dir, command, process_id)
    arguments = [command, "--id", process_id, "--ready-file", str(path)]
    arguments += [*context.common(), *context.passed_on(rows), *more]
    return Launch(process_id, python_command(*arguments), path)
