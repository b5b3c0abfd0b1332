"""Machines made up for tests of the choice of a backend."""

from collections.abc import Mapping

from ops.serving.machine import BackendState, Machine
from workers.runners.devices import Device

CPU = frozenset({Device.CPU})
LLAMA_FAMILY = frozenset({"llama", "qwen2"})


def machine(
    device: Device = Device.CPU,
    obstacles: Mapping[str, str] | None = None,
    gpu_builds: tuple[str, ...] = (),
) -> Machine:
    """Everything is installed but what has an obstacle; `gpu_builds` are made for the device."""
    return Machine(
        device,
        {
            name: BackendState(
                (obstacles or {}).get(name),
                CPU | {device} if name in gpu_builds else CPU,
                LLAMA_FAMILY if name in ("torch", "mlx") else None,
            )
            for name in ("llama_cpp", "torch", "mlx", "echo")
        },
    )
