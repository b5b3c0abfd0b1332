"""The kernel's shared library: compiled on the first start, and kept for this compiler, source and processor."""

import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from workers.runners.machine import Processor, processor
from workers.runners.remembered import default_cache_file

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("step.cpp")
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-fno-math-errno", "-shared", "-fPIC")
_NEEDED = ("avx2", "fma", "f16c")
_TIMEOUT_S = 300.0


class CannotBuild(Exception):
    """Why there is no kernel here, for the log."""


def kernel_library(folder: Path | None = None) -> Path:
    """Path of the compiled kernel. Raises CannotBuild."""
    machine = processor()
    missing = [flag for flag in _NEEDED if flag not in machine.flags]
    if missing:
        raise CannotBuild(f"this processor has no {', '.join(missing)}")
    compiler, version = _compiler()
    library = (folder or default_cache_file().parent / "kernels") / f"step-{_key(version, machine)}.so"
    if not library.exists():
        _compile(compiler, library)
    return library


def _compiler() -> tuple[str, str]:
    """A GCC: others bring an OpenMP of their own beside PyTorch's."""
    for name in filter(None, (os.environ.get("CXX"), "g++", "c++")):
        path = shutil.which(name)
        if path is None:
            continue
        told = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
        if "Free Software Foundation" in told.stdout:
            return path, told.stdout.splitlines()[0]
    raise CannotBuild("there is no g++")


def _key(compiler_version: str, machine: Processor) -> str:
    texts = [file.read_text() for file in (SOURCE, *sorted(SOURCE.parent.glob("*.h")))]
    parts = [*texts, compiler_version, " ".join(_FLAGS), machine.name, " ".join(sorted(machine.flags))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _compile(compiler: str, library: Path) -> None:
    logger.info("compiling the kernel for this processor, once: some seconds")
    started = time.monotonic()
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            # Under a name of its own first: another process may do the same.
            output = Path(folder) / library.name
            done = subprocess.run(
                [compiler, *_FLAGS, str(SOURCE), "-o", str(output)],
                capture_output=True,
                text=True,
                check=False,
                timeout=_TIMEOUT_S,
            )
            if done.returncode:
                errors = [line for line in done.stderr.splitlines() if "error" in line]
                raise CannotBuild(f"{compiler} failed: {(errors or ['no error told'])[0]}")
            os.replace(output, library)
    except OSError as error:
        raise CannotBuild(f"the kernel cannot be kept in {library.parent}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise CannotBuild(f"{compiler} took longer than {_TIMEOUT_S:g} s") from error
    logger.info("compiled in %.1f s", time.monotonic() - started)
