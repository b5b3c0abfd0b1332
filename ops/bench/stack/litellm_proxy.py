"""The peer of the edge: LiteLLM's proxy, one worker, in front of an upstream that costs nothing."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ops.bench.arm import Server
from ops.bench.connection import Target
from ops.bench.errors import ArmUnavailable
from ops.bench.server_process import HOST, answers_ok, free_port, server_process

NAME = "litellm"
MODEL = "echo"
INSTALL = "in an environment of its own: pip install 'litellm[proxy]', and name its `litellm` with --litellm"
# It imports for a long time.
START_LIMIT_S = 180.0


class Proxied(NamedTuple):
    """The proxy, and what stands behind it."""

    proxy: Server
    upstream: Server


def litellm_version(binary: Path) -> str:
    """Raises ArmUnavailable when it cannot be run."""
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False, timeout=120)
    except (OSError, subprocess.SubprocessError) as error:
        raise ArmUnavailable(f"{binary} cannot be run: {error}; {INSTALL}") from None
    if done.returncode != 0:
        raise ArmUnavailable(f"{binary} --version ends with {done.returncode}; {INSTALL}")
    told = [line.strip() for line in done.stdout.splitlines() if "version" in line.lower()]
    return told[-1].replace("LiteLLM: Current Version = ", "LiteLLM ") if told else "LiteLLM of unknown version"


@asynccontextmanager
async def upstream(folder: Path, every_ms: float) -> AsyncIterator[Server]:
    """The upstream alone. Raises ArmFailed."""
    port = free_port()
    module = "ops.bench.stack.upstream"
    command = [sys.executable, "-m", module, "--port", str(port), "--every-ms", str(every_ms)]
    async with server_process(command, folder / "upstream.log", dict(os.environ)) as process:
        await process.wait_until(partial(answers_ok, f"http://{HOST}:{port}/"))
        yield Server(Target(HOST, port, "none"), process, {"upstream": process.pid}, {})


@asynccontextmanager
async def proxied(binary: Path, folder: Path, every_ms: float) -> AsyncIterator[Proxied]:
    """Both, the proxy as it comes but for its key and its one model. Raises ArmFailed."""
    port, key = free_port(), f"sk-{secrets.token_hex(16)}"
    async with upstream(folder, every_ms) as behind:
        config = folder / "litellm.yaml"
        config.write_text(json.dumps(_config(behind.target, key)))
        command = [str(binary), "--config", str(config), "--host", HOST, "--port", str(port), "--num_workers", "1"]
        environment = {**os.environ, "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        async with server_process(command, folder / "litellm.log", environment) as process:
            await process.wait_until(partial(answers_ok, f"http://{HOST}:{port}/health/liveliness"), START_LIMIT_S)
            yield Proxied(Server(Target(HOST, port, key), process, {NAME: process.pid}, {}), behind)


def _config(behind: Target, key: str) -> dict[str, object]:
    route = {"model": f"openai/{MODEL}", "api_base": f"http://{behind.host}:{behind.port}/v1", "api_key": "none"}
    return {
        "model_list": [{"model_name": MODEL, "litellm_params": route}],
        "general_settings": {"master_key": key},
        "litellm_settings": {"telemetry": False},
    }
