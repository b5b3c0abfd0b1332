"""Three real nats-servers in a cluster, from the very file that operators use, for tests that kill them one by one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from broker.credentials import write_private
from broker.server import find_binary
from tests.support.ports import free_ports

CONFIG = Path(__file__).parents[2] / "ops" / "deploy" / "nats" / "cluster.conf"
NAMES = ("n1", "n2", "n3")
_ROUTE_PASSWORD = "routes-of-a-test"
_MAX_FILE = "2GB"


class Node:
    """One server. It keeps its ports and its data over `kill` and `start`."""

    def __init__(self, name: str, directory: Path, ports: list[int], routes: str) -> None:
        self.name = name
        self.port, cluster_port, self._monitor_port = ports
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.environment = {
            "NATS_NAME": name,
            "NATS_STORE": str(directory / name),
            "NATS_MAX_FILE": _MAX_FILE,
            "NATS_LISTEN": f"127.0.0.1:{self.port}",
            "NATS_CLUSTER": f"127.0.0.1:{cluster_port}",
            "NATS_MONITOR": f"127.0.0.1:{self._monitor_port}",
            "NATS_ROUTES": routes,
            "NATS_ROUTE_PASSWORD": _ROUTE_PASSWORD,
        }

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not running"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Start it, without waiting for the others. On one small machine a server does not need all processors."""
        with (self._directory / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [find_binary(), "-c", str(self._directory / CONFIG.name)],
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment, "GOMAXPROCS": "1"},
            )

    def end(self, number: signal.Signals) -> None:
        """Send a signal that ends it, and reap it. Does nothing when it is not running."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait()

    def kill(self) -> None:
        """SIGKILL."""
        self.end(signal.SIGKILL)

    def look(self, path: str) -> dict[str, Any] | None:
        """A page of its monitor; None while it says anything but 200, or nothing."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._monitor_port}{path}", timeout=2) as answer:
                page: dict[str, Any] = json.load(answer)
        except (OSError, urllib.error.HTTPError, ValueError):
            return None
        return page


class Cluster:
    """Used from any thread but one at a time. What waits is asked for: states of other processes send no event."""

    def __init__(self, directory: Path) -> None:
        self.credentials = directory / "creds"
        shutil.copy(CONFIG, directory)
        write_private(directory / "accounts.conf", _accounts(self.credentials))
        ports = free_ports(3 * len(NAMES))
        places = [(name, ports[3 * place : 3 * place + 3]) for place, name in enumerate(NAMES)]
        routes = ", ".join(f"nats://route:{_ROUTE_PASSWORD}@127.0.0.1:{each[1]}" for _, each in places)
        self.nodes = {name: Node(name, directory, each, f"[{routes}]") for name, each in places}

    @property
    def url(self) -> str:
        """All servers, as `--nats-url` takes them."""
        return ",".join(node.url for node in self.nodes.values())

    def start(self) -> None:
        for node in self.nodes.values():
            node.start()

    def is_healthy(self) -> bool:
        """Whether every server runs and has all that it should have of every stream and consumer."""
        return all(node.is_running and node.look("/healthz") is not None for node in self.nodes.values())

    def leader(self, stream: str) -> Node | None:
        """The server that leads a stream and says so itself; None while there is none."""
        for node in self.nodes.values():
            group = self._streams(node).get(stream, {})
            if node.is_running and group.get("leader") == node.name:
                return node
        return None

    def wait_leader(self, stream: str) -> Node:
        """The same, once there is one: a busy server answers late, and they may be choosing another just then."""
        while (leader := self.leader(stream)) is None:
            time.sleep(0.05)
        return leader

    def meta_leader(self) -> Node | None:
        """The server that decides where streams and consumers are; None while there is none."""
        for node in self.nodes.values():
            page = node.look("/jsz") if node.is_running else None
            if page is not None and page.get("meta_cluster", {}).get("leader") == node.name:
                return node
        return None

    def close(self) -> None:
        for node in self.nodes.values():
            node.end(signal.SIGTERM)

    def _streams(self, node: Node) -> dict[str, dict[str, Any]]:
        """What a server knows of the raft groups of its streams."""
        page = node.look("/jsz?accounts=1&streams=1") if node.is_running else None
        found: Iterable[dict[str, Any]] = (page or {}).get("account_details") or ()
        return {stream["name"]: stream.get("cluster", {}) for each in found for stream in each.get("stream_detail", ())}


def _accounts(credentials: Path) -> str:
    """Make the logins and say what the servers have to know of them, as an operator does."""
    command = [sys.executable, "-m", "ops.cli.inferflux", "topology", "credentials", "--out", str(credentials)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
