"""Devices are told from files: no library is loaded to ask it."""

import sys
from pathlib import Path

import pytest

from workers.runners import devices
from workers.runners.devices import CPU_ONLY, Device, find_device, llama_cpp_devices, mlx_devices, torch_devices


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which packages are found first, on Linux."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(devices, "_folder_of", lambda name: path if (path := tmp_path / name).is_dir() else None)
    return tmp_path


@pytest.mark.parametrize(
    ("system", "processor", "file", "device"),
    [
        ("linux", "x86_64", "/dev/nvidiactl", Device.CUDA),
        ("linux", "x86_64", "/dev/dxg", Device.CUDA),
        ("linux", "x86_64", "/dev/kfd", Device.ROCM),
        ("linux", "aarch64", None, Device.CPU),
        ("darwin", "arm64", None, Device.METAL),
        ("darwin", "x86_64", None, Device.CPU),
    ],
)
def test_the_device_of_a_machine(
    system: str, processor: str, file: str | None, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(devices, "machine", lambda: processor)
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == file)
    assert find_device() is device


@pytest.mark.parametrize(
    ("library", "found"),
    [
        ("libggml-cpu.so", CPU_ONLY),
        ("libggml-cuda.so.0", CPU_ONLY | {Device.CUDA}),
        ("libggml-hip.so", CPU_ONLY | {Device.ROCM}),
        ("libggml-metal.dylib", CPU_ONLY | {Device.METAL}),
    ],
)
def test_llama_cpp_is_known_by_its_libraries(library: str, found: frozenset[Device], packages: Path) -> None:
    assert llama_cpp_devices() == CPU_ONLY
    (packages / "llama_cpp" / "lib").mkdir(parents=True)
    (packages / "llama_cpp" / "lib" / library).write_bytes(b"")
    assert llama_cpp_devices() == found


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("cuda: Optional[str] = None\nhip: Optional[str] = None", CPU_ONLY),
        ("cuda: Optional[str] = '12.8'\nhip: Optional[str] = None", CPU_ONLY | {Device.CUDA}),
        ("cuda = '12.8'", CPU_ONLY | {Device.CUDA}),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '7.0'", CPU_ONLY | {Device.ROCM}),
    ],
)
def test_torch_is_known_by_its_version_file(lines: str, found: frozenset[Device], packages: Path) -> None:
    assert torch_devices() == CPU_ONLY
    (packages / "torch").mkdir()
    assert torch_devices() == CPU_ONLY
    (packages / "torch" / "version.py").write_text(f"__version__ = '2.13.0'\n{lines}\n")
    assert torch_devices() == found


def test_on_a_mac_torch_and_mlx_can_use_its_gpu(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mlx_devices() == CPU_ONLY
    monkeypatch.setattr(sys, "platform", "darwin")
    (packages / "torch").mkdir()
    assert mlx_devices() == torch_devices() == CPU_ONLY | {Device.METAL}


def test_what_is_installed_here_can_at_least_use_the_cpu() -> None:
    assert all(Device.CPU in found for found in (llama_cpp_devices(), torch_devices(), mlx_devices()))
