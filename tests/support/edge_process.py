"""A real edge in a process of its own, on the test's broker, with a configuration file."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import yaml

from tests.conftest import Broker
from tests.support.waiting import until


class EdgeProcess:
    """`log` holds what it said, one JSON object a line."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, config: Path, log: Path) -> None:
        self.process = process
        self.url = url
        self.config = config
        self._log = log

    def client(self, key: str) -> httpx2.AsyncClient:
        headers = {"authorization": f"Bearer {key}"}
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    def write(self, document: Any) -> None:
        """Replace the configuration file whole; text is written as it is."""
        write_document(self.config, document)

    def hang_up(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]

    def has_said(self, words: str) -> bool:
        return any(words in json.dumps(line, ensure_ascii=False) for line in self.log)


def write_document(path: Path, document: Any) -> None:
    temporary = path.with_name(f".{path.name}.new")
    text = document if isinstance(document, str | bytes) else yaml.safe_dump(document)
    temporary.write_bytes(text.encode() if isinstance(text, str) else text)
    temporary.replace(path)


@asynccontextmanager
async def edge_process(broker: Broker, folder: Path, document: Any) -> AsyncIterator[EdgeProcess]:
    config, ready, log = folder / "server.yaml", folder / "ready.json", folder / "edge.log"
    write_document(config, document)
    environ = {name: text for name, text in os.environ.items() if not name.startswith("INFERFLUX_")}
    command = [sys.executable, "-P", "-m", "ops.cli.inferflux", "edge", "--config", str(config)]
    command += ["--data-dir", str(folder / "data"), "--port", "0", "--ready-file", str(ready)]
    command += ["--nats-url", broker.server.url, "--nats-credentials", str(broker.server.credentials)]
    with log.open("w") as output:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=output, stderr=output, env=environ | {"INFERFLUX_LOG_FORMAT": "json"}
        )
    try:
        await until(lambda: ready.exists() or process.returncode is not None)
        assert ready.exists(), log.read_text()
        yield EdgeProcess(process, json.loads(ready.read_text())["url"], config, log)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0, log.read_text()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
