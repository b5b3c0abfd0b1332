"""Where MLX computes, and what that means for the choices that are left to the runner."""

from typing import NamedTuple

import mlx.core as mx

from workers.runners.base import RunnerError, RunnerSpec
from workers.runners.machine import available_bytes


class Device(NamedTuple):
    """`poll_layers`: after how many layers of a prompt the abort flag is looked at. Each look waits for the device."""

    device: mx.Device
    name: str
    poll_layers: int

    @property
    def is_gpu(self) -> bool:
        return bool(self.device.type == mx.DeviceType.gpu)

    def available_bytes(self) -> int:
        """Memory that weights and KV may take without anything being swapped out."""
        if not self.is_gpu:
            return available_bytes()
        limit = mx.device_info().get("max_recommended_working_set_size", 0)
        return max(0, int(limit) - int(mx.get_active_memory()))


def choose_device(spec: RunnerSpec) -> Device:
    """The GPU where there is one, unless `gpu_layers` is 0. Raises RunnerError for what MLX cannot do."""
    if spec.threads is not None:
        raise RunnerError("threads cannot be set on mlx, which decides that itself; remove the setting")
    if spec.gpu_layers not in (None, 0):
        raise RunnerError(
            f"gpu_layers is {spec.gpu_layers}, but mlx computes all of a model in one place: 0 for the processor, or"
            " remove the setting for the GPU where there is one"
        )
    has_gpu = mx.default_device().type == mx.DeviceType.gpu
    if spec.gpu_layers == 0 or not has_gpu:
        return Device(mx.Device(mx.DeviceType.cpu), "CPU", poll_layers=1)
    return Device(mx.default_device(), "GPU", poll_layers=4)
