"""`<data-dir>/run.json`: what runs here, for other commands and for tests. No secret is in it."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

NAME = "run.json"


@dataclass(frozen=True, slots=True)
class RunningProcess:
    """`pid` is None for a process that is not ours, such as an external NATS."""

    pid: int | None
    url: str


@dataclass(frozen=True, slots=True)
class RunningWorker:
    """`metrics` is the address of its scrape port."""

    pid: int
    id: str
    backend: str
    metrics: str


@dataclass(frozen=True, slots=True)
class Running:
    """Everything that runs. `edge` is None when there is none, or not yet."""

    nats: RunningProcess
    edge: RunningProcess | None = None
    workers: tuple[RunningWorker, ...] = ()


def run_file(data_dir: Path) -> Path:
    return data_dir / NAME


def write_run_file(data_dir: Path, running: Running) -> None:
    """Replace the file whole."""
    write_whole(run_file(data_dir), json.dumps(asdict(running)))


def remove_run_file(data_dir: Path) -> None:
    run_file(data_dir).unlink(missing_ok=True)


def read_run_file(data_dir: Path) -> Running | None:
    """What runs in a data directory; None when nothing does, or its `up` died without tidying up."""
    try:
        document = json.loads(run_file(data_dir).read_text())
        edge = document["edge"]
        return Running(
            nats=RunningProcess(**document["nats"]),
            edge=None if edge is None else RunningProcess(**edge),
            workers=tuple(RunningWorker(**worker) for worker in document["workers"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees all of it or the one before."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)
