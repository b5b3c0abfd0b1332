"""The wheel of llama-cpp-python: built once per machine kind, kept in the user's cache. Standard library only.

The cache key covers version, build flags, compiler and processor features, since llama.cpp is compiled for the
processor it is built on.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HEADER = Path(__file__).with_name("amx_tile_config.h")
TARGETS = {
    "cpu": ("-DGGML_NATIVE=ON",),
    "cuda": ("-DGGML_NATIVE=ON", "-DGGML_CUDA=ON"),
    "rocm": ("-DGGML_NATIVE=ON", "-DGGML_HIP=ON"),
    "metal": ("-DGGML_METAL=ON",),
}
OVERRIDE = "INFERFLUX_BUILD_LLAMA"
CACHE = "INFERFLUX_BUILD_CACHE"
PROGRESS_EVERY_S = 30


class SetupError(Exception):
    """Set-up cannot go on; one line that ends with the command that helps."""


@dataclass(frozen=True)
class BuildFlags:
    """What the wheel is built for. `reason` says why this target."""

    target: str
    reason: str

    @property
    def cmake_args(self) -> tuple[str, ...]:
        return TARGETS[self.target]

    def key_parts(self) -> list[str]:
        """Everything that makes two builds differ, the library's version aside."""
        return [*self.cmake_args, HEADER.read_text(), compiler_version(), processor_features(), platform.machine()]


def flags_for() -> BuildFlags:
    """The build target: the override, else what this machine has."""
    asked = os.environ.get(OVERRIDE)
    if asked:
        if asked not in TARGETS:
            raise SetupError(f"{OVERRIDE}={asked}: known are {', '.join(TARGETS)}")
        return BuildFlags(asked, f"{OVERRIDE} says so")
    if sys.platform == "darwin":
        return BuildFlags("metal", "this is macOS")
    if shutil.which("nvcc") and Path("/dev/nvidiactl").exists():
        return BuildFlags("cuda", "nvcc and an NVIDIA device are here")
    if shutil.which("hipcc") and Path("/dev/kfd").exists():
        return BuildFlags("rocm", "hipcc and an AMD device are here")
    compilers = [name for name in ("nvcc", "hipcc") if shutil.which(name)]
    if compilers:
        return BuildFlags("cpu", f"{compilers[0]} is here but no device; {OVERRIDE}=cuda or rocm overrides")
    return BuildFlags("cpu", "no GPU compiler is here")


def find_or_build(requirement: str, flags: BuildFlags) -> Path:
    """Path of the wheel of `requirement` (`name==version`), from the cache or compiled now. Raises SetupError."""
    folder = cache_folder(requirement, flags)
    wheels = sorted(folder.glob("*.whl"))
    print(f"setup: llama.cpp for {flags.target} ({flags.reason})", flush=True)
    if wheels:
        return wheels[0]
    if compiler() is None:
        raise SetupError(f"a C++ compiler is missing: {compiler_hint()} (make up BACKEND=echo needs none)")
    return _build(requirement, flags, folder)


def cache_folder(requirement: str, flags: BuildFlags) -> Path:
    digest = hashlib.sha256("\0".join([requirement, *flags.key_parts()]).encode()).hexdigest()[:16]
    return cache_root() / "wheels" / f"{requirement.replace('==', '-')}-{flags.target}-{digest}"


def cache_root() -> Path:
    if override := os.environ.get(CACHE):
        return Path(override)
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/inferflux"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inferflux"


def compiler() -> str | None:
    """The C++ compiler that CMake will take."""
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and shutil.which(name):
            return name
    return None


def compiler_hint() -> str:
    """The command that installs a C++ compiler here."""
    if sys.platform == "darwin":
        return "xcode-select --install"
    return "sudo dnf install gcc-c++" if shutil.which("dnf") else "sudo apt-get install g++"


def compiler_version() -> str:
    name = compiler()
    if name is None:
        return ""
    done = subprocess.run([name, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0]


def processor_features() -> str:
    """What `-march=native` depends on, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return " ".join(sorted(value.split()))
    return platform.processor()


def _build(requirement: str, flags: BuildFlags, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    log_path = folder / "build.log"
    print(f"setup: compiling llama.cpp once, some minutes; log in {log_path}", flush=True)
    with tempfile.TemporaryDirectory(prefix="inferflux-build-") as temporary, log_path.open("w") as log:
        header = Path(temporary) / HEADER.name
        shutil.copy(HEADER, header)
        # pip's own cache knows nothing of flags, so it is kept out of this.
        command = [sys.executable, "-m", "pip", "wheel", "--no-cache-dir", "--no-deps", "--wheel-dir", temporary]
        command += ["--verbose", "--disable-pip-version-check", requirement]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=_environment(flags, header))
        _wait(process)
        wheels = list(Path(temporary).glob("*.whl"))
        if process.returncode != 0 or not wheels:
            raise SetupError(f"llama.cpp did not compile, see {log_path} (make up BACKEND=echo works without it)")
        partial = folder / f".{wheels[0].name}"
        shutil.copy(wheels[0], partial)
        return partial.rename(folder / wheels[0].name)


def _environment(flags: BuildFlags, header: Path) -> dict[str, str]:
    environment = dict(os.environ)
    for variable in ("CFLAGS", "CXXFLAGS"):
        environment[variable] = f"{environment.get(variable, '')} -include {header}".strip()
    environment["CMAKE_ARGS"] = " ".join([environment.get("CMAKE_ARGS", ""), *flags.cmake_args]).strip()
    environment.setdefault("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count() or 1))
    return environment


def _wait(process: "subprocess.Popen[bytes]") -> None:
    started = time.monotonic()
    while True:
        try:
            process.wait(PROGRESS_EVERY_S)
        except subprocess.TimeoutExpired:
            print(f"setup: still compiling, {time.monotonic() - started:.0f} s", flush=True)
        else:
            return
