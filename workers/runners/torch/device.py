"""Which device computes, and what it has.

NOTE: CUDA, ROCm and MPS paths are written to run and nothing of them has run on a GPU.
"""

import torch

from workers.runners.base import RunnerError, RunnerSpec
from workers.runners.machine import available_bytes, num_processors


def choose_device(gpu_layers: int | None, num_layers: int) -> torch.device:
    """A GPU if there is one and `gpu_layers` is not 0. Raises RunnerError for what cannot be had."""
    if gpu_layers == 0:
        return torch.device("cpu")
    gpu = _gpu()
    if gpu is None:
        if gpu_layers:
            raise RunnerError(f"gpu_layers is {gpu_layers}, but PyTorch sees no GPU here")
        return torch.device("cpu")
    if gpu_layers is not None and 0 < gpu_layers < num_layers:
        raise RunnerError(
            f"gpu_layers is {gpu_layers}, but PyTorch runs all {num_layers} layers on one device; leave it empty or"
            " set 0"
        )
    return gpu


def _gpu() -> torch.device | None:
    # ROCm builds answer to the name cuda too.
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps") if torch.backends.mps.is_available() else None


def use_threads(spec: RunnerSpec) -> int:
    """Set the number of threads that compute. To be called on the engine thread, before anything is computed."""
    threads = num_processors() if spec.threads is None else spec.threads
    if threads < 1:
        raise RunnerError(f"threads must be at least 1, not {threads}")
    torch.set_num_threads(threads)
    return threads


def free_bytes(device: torch.device) -> int:
    """Memory of the device that can be taken."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return available_bytes()
