"""Our own arms: `inferflux up` as a user starts it, with its own configuration, data and free ports."""

import json
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from ops.bench.arm import Server
from ops.bench.connection import Target
from ops.bench.errors import ArmFailed, ArmUnavailable
from ops.bench.plan import BenchPlan
from ops.bench.server_process import HOST, ServerProcess, answers_ok, server_process
from ops.bench.versions import distribution_version, inferflux_version, nats_server_version
from ops.errors import CommandError
from ops.serving.machine import LIBRARIES
from ops.serving.plan import plan_models
from ops.settings.errors import SettingsError
from ops.settings.loader import load
from ops.supervisor.child import python_command
from ops.supervisor.run_file import read_run_file
from schemas.model_names import model_id_of

# The echo runner's tokens are bytes, of which a token of other models has four or five.
ECHO_BYTES = 8
MIN_ECHO_CONTEXT = 2048
ECHO_REPEATS = 10


class OurStack:
    """Edge, broker and one worker on a backend, `auto` for the one that a user would get. On `echo` the worker repeats
    the prompt as fast as it goes: what is left is the cost of everything around a model."""

    def __init__(self, name: str, plan: BenchPlan, backend: str) -> None:
        self.name = name
        self.num_repeats = ECHO_REPEATS if backend == "echo" else 1
        self._plan = plan
        self._backend = backend
        self._is_echo = backend == "echo"
        self.has_model_tokens = not self._is_echo

    def check(self) -> None:
        if self._is_echo:
            return
        if self._plan.model is None:
            raise ArmUnavailable("there is no model; `make setup` installs the default one, --model names another")
        try:
            flags = {"--model": str(self._plan.model), "--backend": self._backend}
            self._backend = plan_models(load({}, flags))[0].backend
        except (CommandError, SettingsError) as error:
            raise ArmUnavailable(str(error)) from None

    def describe(self) -> dict[str, str]:
        library = LIBRARIES.get(self._backend)
        parts = [f"InferFlux {inferflux_version()}", nats_server_version()]
        parts += [f"{library} {distribution_version(library)}"] if library is not None else []
        shown = json.dumps({**self._model(), "source": self._source().rpartition(os.sep)[2]})
        return {
            "version": ", ".join(parts),
            "settings": f"1 worker of inferflux up, {shown}, all else as it comes",
        }

    @property
    def backend(self) -> str:
        """The one that runs; known after `check`."""
        return self._backend

    @asynccontextmanager
    async def running(self, folder: Path) -> AsyncIterator[Server]:
        async with running_stack(folder, self._model()) as server:
            yield server

    def _source(self) -> str:
        return "echo" if self._is_echo else str(self._plan.model)

    def _model(self) -> dict[str, str | int]:
        """The fields of `models.<id>`."""
        common: dict[str, str | int] = {
            "source": self._source(),
            "backend": self._backend,
            "sequences": self._plan.sequences,
        }
        if self._is_echo:
            return {**common, "context": max(ECHO_BYTES * self._plan.context, MIN_ECHO_CONTEXT)}
        return {**common, "context": self._plan.context, "threads": self._plan.threads}


@asynccontextmanager
async def running_stack(
    folder: Path, model: Mapping[str, str | int], scopes: str = "generate+read"
) -> AsyncIterator[Server]:
    """`inferflux up` with one model, given as the fields of `models.<id>`; its data is in `data_dir(folder)`. `scopes`
    are those of the key that the target has. Raises ArmFailed.
    """
    config, api_key = folder / "server.yaml", secrets.token_hex(16)
    config.write_text(json.dumps({"models": {model_id_of(str(model["source"])): model}}))  # JSON is YAML
    flags = {"--config": config, "--data-dir": data_dir(folder), "--host": HOST, "--port": 0, "--nats-port": 0}
    command = python_command("up", *(str(text) for flag in flags.items() for text in flag))
    # No setting of the caller's shell may come between the figures and the settings printed with them.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INFERFLUX_")}
    environment["INFERFLUX_API_KEYS"] = f"{api_key}:{scopes}"
    async with server_process(command, folder / "up.log", environment) as process:
        await process.wait_until(partial(_is_ready, data_dir(folder)))
        yield await _server(process, data_dir(folder), api_key)


def data_dir(folder: Path) -> Path:
    return folder / "data"


async def _is_ready(data_dir: Path) -> bool:
    """The edge serves, and `up` knows of the worker too, which may come a moment later."""
    running = read_run_file(data_dir)
    if running is None or running.edge is None or not running.workers:
        return False
    return await answers_ok(f"{running.edge.url}/readyz")


async def _server(process: ServerProcess, data_dir: Path, api_key: str) -> Server:
    running = read_run_file(data_dir)
    if running is None or running.edge is None or not running.workers:
        raise ArmFailed(f"edge or worker ended right after the start ({process.failure()})")
    port = urlsplit(running.edge.url).port
    assert port is not None
    facts = await _facts(running.edge.url, api_key)
    pids = {"edge": running.edge.pid, "worker": running.workers[0].pid, "nats-server": running.nats.pid}
    processes = {name: pid for name, pid in {**pids, "up": process.pid}.items() if pid is not None}
    return Server(Target(HOST, port, api_key), process, processes, facts)


async def _facts(url: str, api_key: str) -> dict[str, str]:
    """How the model is really served, as the edge tells it."""
    async with httpx2.AsyncClient(trust_env=False, timeout=10) as client:
        try:
            response = await client.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {api_key}"})
        except httpx2.TransportError as error:
            raise ArmFailed(f"GET /v1/models: {error}") from None
    if response.status_code != 200:
        raise ArmFailed(f"GET /v1/models gave {response.status_code}")
    backend: dict[str, Any] = response.json()["data"][0]["backends"][0]
    return {name: str(backend[name]) for name in ("backend", "context", "slots", "fingerprint")}
