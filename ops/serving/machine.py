"""What this machine offers to models: its device, and the backends that are installed."""

from collections.abc import Mapping
from dataclasses import dataclass

from workers.runners.devices import Device, find_device
from workers.runners.registry import known_backends

# Distribution of each backend's library.
LIBRARIES = {"llama_cpp": "llama-cpp-python", "torch": "torch", "mlx": "mlx"}


@dataclass(frozen=True, slots=True)
class BackendState:
    """A backend here. `obstacle` says why it cannot be used, and to run `install` where that helps.

    `devices` are those its library was built for, `architectures` those it has code for (None: it says so when it loads
    a model).
    """

    obstacle: str | None
    devices: frozenset[Device] = frozenset({Device.CPU})
    architectures: frozenset[str] | None = None
    install: str = ""

    def can_run(self, architecture: str) -> bool:
        return self.architectures is None or architecture in self.architectures


@dataclass(frozen=True, slots=True)
class Machine:
    """All that the choice of a backend depends on, besides model and settings."""

    device: Device
    backends: Mapping[str, BackendState]


def this_machine() -> Machine:
    """Looks, and loads no library."""
    states = {
        name: BackendState(backend.missing(), backend.devices(), backend.architectures, backend.install)
        for name, backend in known_backends().items()
    }
    return Machine(find_device(), states)
