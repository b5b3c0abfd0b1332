"""InferFlux on three nats-servers, with two edges and two workers that nobody supervises."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.cluster import Cluster
from tests.support.ports import free_port
from tests.system.beside import Beside
from tests.system.stack import Stack, echo_config, fetch, until


class Deployment:
    """What docs/Cluster.md has an operator start, on one machine."""

    def __init__(self, folder: Path, source: str, **fields: object) -> None:
        self.folder = folder
        self.cluster = Cluster(folder)
        document = json.loads(echo_config(folder, source, **fields).read_text())
        document["nats"] = {"replicas": 3, "max_file_bytes": "1GiB"}
        self.config = folder / "server.yaml"
        self.config.write_text(json.dumps(document))
        # One data directory: both edges know a client by the same name.
        self.place = Stack(folder / "data")
        self.edges: dict[str, Beside] = {}
        self.workers: dict[str, Beside] = {}

    @property
    def options(self) -> list[str]:
        """How every command finds models and broker."""
        broker = ["--nats-url", self.cluster.url, "--nats-credentials", str(self.cluster.credentials)]
        return ["--config", str(self.config), *broker]

    def start(self) -> None:
        self.cluster.start()
        apply = [sys.executable, "-m", "ops.cli.inferflux", "topology", "apply", *self.options]
        subprocess.run(apply, check=True, env=self.place.env, capture_output=True)
        for number in (1, 2):
            self.start_worker(f"worker-{number}")
            self.start_edge(f"edge-{number}", free_port())
        until(lambda: all(map(is_ready, self.edges.values())), "both edges know the workers")
        until(self.cluster.is_healthy, "every server has its copies")

    def start_edge(self, name: str, port: int) -> None:
        self.edges[name] = Beside(self.place, "edge", name, "--port", str(port), *self.options)

    def start_worker(self, name: str) -> None:
        self.workers[name] = Beside(self.place, "worker", name, *self.options)

    def stop(self) -> None:
        processes = (*self.edges.values(), *self.workers.values())
        for process in processes:
            process.send(signal.SIGTERM)
        for process in processes:
            process.stop()
        self.cluster.close()


def is_ready(edge: Beside) -> bool:
    try:
        fetch(f"{edge.url}/readyz", timeout_s=2)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def deployed(folder: Path, source: str, **fields: object) -> Iterator[Deployment]:
    deployment = Deployment(folder, source, **fields)
    try:
        deployment.start()
        yield deployment
    finally:
        deployment.stop()
