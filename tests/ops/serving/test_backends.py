"""Which backend runs a model: one table of machine, settings and model, and what comes of them."""

import pytest

from ops.errors import CannotStart
from ops.serving.backends import can_share_process, choose_backend
from ops.serving.machine import Machine
from ops.serving.sources import Source, SourceKind
from ops.settings.loader import load
from ops.settings.models import model_from_source
from tests.ops.serving.machines import machine
from workers.runners.devices import Device

GGUF = Source(SourceKind.GGUF, "/m/tiny.gguf", "llama")
FOLDER = Source(SourceKind.FOLDER, "/m/tiny", "llama")
GEMMA = Source(SourceKind.GGUF, "/m/gemma.gguf", "gemma3")
GEMMA_FOLDER = Source(SourceKind.FOLDER, "/m/gemma", "gemma3")
UNNAMED = Source(SourceKind.FOLDER, "/m/unnamed", None)
ECHO = Source(SourceKind.ECHO, "echo")

NO_LLAMA = {"llama_cpp": "llama_cpp not installed; run: make it so"}
NO_TORCH = {"torch": "torch not installed; run: make it so"}
NO_MLX = {"mlx": "mlx not installed; run: make it so"}
NATIVE_FIRST = {"INFERFLUX_BACKEND_PREFER_NATIVE": "true"}
NATIVE_ONLY = {"INFERFLUX_BACKEND_ALLOW_LLAMA_FALLBACK": "false"}

CPU = machine()
CUDA = machine(Device.CUDA, gpu_builds=("llama_cpp", "torch"))
APPLE = machine(Device.METAL, gpu_builds=("llama_cpp", "torch", "mlx"))


def priority(order: str) -> dict[str, str]:
    return {"INFERFLUX_BACKEND_PRIORITY": order}


def choose(here: Machine, source: Source, environ: dict[str, str], flag: str = "auto") -> tuple[str, str]:
    runtime = load(environ, {"--backend": flag}).runtime
    return choose_backend(model_from_source("/m/tiny.gguf"), source, runtime, here)


@pytest.mark.parametrize(
    ("here", "source", "environ", "backend", "reason"),
    [
        # the model's format, and what is installed
        (CPU, GGUF, {}, "llama_cpp", "automatic: on the CPU"),
        (CPU, FOLDER, {}, "torch", "on the CPU; llama_cpp: does not read a folder with safetensors"),
        (machine(obstacles=NO_LLAMA), GGUF, {}, "torch", "llama_cpp: llama_cpp not installed"),
        (machine(obstacles=NO_TORCH), FOLDER, {}, "mlx", "torch: torch not installed"),
        (machine(obstacles=NO_LLAMA | NO_TORCH), GGUF, {}, "mlx", "torch: torch not installed"),
        # its architecture
        (machine(obstacles=NO_MLX), GEMMA, {}, "llama_cpp", "automatic: on the CPU"),
        (CPU, GEMMA, NATIVE_FIRST, "llama_cpp", "torch: has no code for architecture gemma3"),
        (machine(obstacles=NO_LLAMA), GEMMA, {}, "torch", "torch: has no code for architecture gemma3; mlx: has no"),
        (CPU, GEMMA_FOLDER, {}, "torch", "torch: has no code for architecture gemma3"),
        (CPU, UNNAMED, {}, "torch", "automatic: on the CPU"),
        # the device, and what the libraries were built for
        (CUDA, GGUF, {}, "llama_cpp", "automatic: on the NVIDIA GPU"),
        (CUDA, FOLDER, {}, "torch", "automatic: on the NVIDIA GPU"),
        (machine(Device.CUDA, gpu_builds=("torch",)), GGUF, {}, "torch", "automatic: on the NVIDIA GPU"),
        (machine(Device.ROCM, gpu_builds=("torch",)), GGUF, {}, "torch", "automatic: on the AMD GPU"),
        (machine(Device.CUDA, NO_TORCH, ("torch",)), GGUF, {}, "llama_cpp", "this build does not use the NVIDIA GPU"),
        (machine(Device.CUDA), GGUF, {}, "llama_cpp", "on the CPU, as this build does not use the NVIDIA GPU"),
        (APPLE, GGUF, {}, "mlx", "automatic: on the Apple GPU"),
        (APPLE, FOLDER, {}, "mlx", "automatic: on the Apple GPU"),
        (APPLE, GEMMA, {}, "llama_cpp", "mlx: has no code for architecture gemma3"),
        (machine(Device.METAL, NO_MLX, ("llama_cpp", "mlx")), GGUF, {}, "llama_cpp", "mlx: mlx not installed"),
        # the settings
        (CPU, GGUF, priority("torch,llama_cpp"), "torch", "first of runtime.backend_priority that can, on the CPU"),
        (CPU, FOLDER, priority("llama_cpp,mlx"), "mlx", "llama_cpp: does not read"),
        (CUDA, GGUF, priority("mlx,torch"), "mlx", "this build does not use the NVIDIA GPU"),
        (CPU, GGUF, NATIVE_FIRST, "torch", "native backends are preferred"),
        (CPU, GGUF, NATIVE_FIRST | priority("llama_cpp,mlx"), "mlx", "native backends are preferred"),
        (machine(obstacles=NO_TORCH | NO_MLX), GGUF, NATIVE_FIRST, "llama_cpp", "torch: torch not installed"),
        (CPU, GGUF, NATIVE_ONLY, "torch", "llama_cpp is not allowed"),
        # echo is no backend of weights
        (CPU, ECHO, {}, "echo", "the model's source is echo"),
        (CPU, ECHO, NATIVE_ONLY, "echo", "the model's source is echo"),
    ],
)
def test_automatic(here: Machine, source: Source, environ: dict[str, str], backend: str, reason: str) -> None:
    chosen, why = choose(here, source, environ)
    assert chosen == backend
    assert reason in why


@pytest.mark.parametrize(
    ("here", "source", "environ", "reason"),
    [
        (machine(obstacles=NO_TORCH | NO_MLX), FOLDER, {}, "torch: torch not installed; run: make it so; mlx: mlx not"),
        (machine(obstacles=NO_TORCH), GGUF, priority("torch"), "torch: torch not installed"),
        (machine(obstacles=NO_TORCH | NO_MLX), GGUF, NATIVE_ONLY, "allow_llama_fallback is false"),
    ],
)
def test_a_model_that_nothing_here_can_serve_is_refused(
    here: Machine, source: Source, environ: dict[str, str], reason: str
) -> None:
    with pytest.raises(CannotStart, match="model tiny: no backend can serve it") as refused:
        choose(here, source, environ)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("asked", "here", "source", "reason"),
    [
        ("torch", machine(obstacles=NO_TORCH), GGUF, "backend torch: torch not installed; run: make it so"),
        ("mlx", machine(obstacles=NO_MLX), FOLDER, "backend mlx: mlx not installed; run: make it so"),
        ("llama_cpp", CPU, FOLDER, "backend llama_cpp cannot serve /m/tiny (folder with safetensors)"),
        ("echo", CPU, GGUF, "backend echo cannot serve /m/tiny.gguf (GGUF file)"),
        ("torch", CPU, ECHO, "backend torch cannot serve echo (echo)"),
    ],
)
def test_an_asked_for_backend_that_cannot_is_refused(asked: str, here: Machine, source: Source, reason: str) -> None:
    with pytest.raises(CannotStart) as refused:
        choose(here, source, {}, asked)
    assert str(refused.value) == f"model tiny: {reason}"


def test_the_file_of_an_asked_for_backend_is_refused_by_that_alone() -> None:
    assert choose(CPU, GEMMA, {}, "torch") == ("torch", "asked for")


@pytest.mark.parametrize("asked", ["llama_cpp", "torch", "mlx"])
def test_an_asked_for_backend_is_taken_whatever_else_is_set(asked: str) -> None:
    assert choose(CUDA, GGUF, NATIVE_ONLY | priority("mlx"), asked) == (asked, "asked for")


def test_one_library_with_threads_of_its_own_in_a_process() -> None:
    assert can_share_process(["torch", "torch", "echo"])
    assert can_share_process(["echo"])
    assert not can_share_process(["torch", "llama_cpp"])
    assert not can_share_process(["mlx", "torch"])
