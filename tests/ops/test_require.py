"""The plug-in that turns skips into failures where everything must be there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = """
import pytest

@pytest.mark.llama
def test_marked():
    pytest.skip("the wheel is not built")

def test_named():
    pytest.skip("llama_cpp is not installed")

def test_docker():
    pytest.skip("no docker engine for nats")

@pytest.mark.llama
@pytest.mark.gpu
def test_gpu():
    pytest.skip("no device")

@pytest.mark.llama
@pytest.mark.xfail(strict=False)
def test_expected():
    raise AssertionError

@pytest.mark.torch
def test_a_backend():
    pytest.skip("nothing to run it with")

def test_its_reference():
    pytest.skip("could not import 'transformers'")

@pytest.mark.mlx
def test_another_backend():
    pytest.skip("mlx is not installed")

@pytest.mark.torch
def test_a_device():
    pytest.skip("no CUDA device for torch")

@pytest.mark.mlx
def test_another_device():
    pytest.skip("no Metal here")

def test_other():
    pytest.skip("only on Tuesdays")
"""


@pytest.mark.parametrize(
    ("value", "failed", "skipped", "processes"),
    [
        (None, 0, 10, 0),
        ("all", 5, 5, 0),
        ("all", 5, 5, 2),
        ("llama,nats", 2, 8, 0),
        ("torch", 2, 8, 0),
        ("mlx", 1, 9, 0),
    ],
)
def test_only_what_is_asked_for_must_be_there(
    tmp_path: Path, value: str | None, failed: int, skipped: int, processes: int
) -> None:
    (tmp_path / "test_it.py").write_text(MODULE)
    environ = {name: text for name, text in os.environ.items() if name != "INFERFLUX_TEST_REQUIRE"}
    if value is not None:
        environ["INFERFLUX_TEST_REQUIRE"] = value
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.support.require", "-p", "no:cacheprovider"]
    command += ["-c", "/dev/null", "--rootdir", str(tmp_path), str(tmp_path)]
    command += ["-n", str(processes)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=root, check=False)
    counts = done.stdout.splitlines()[-1]
    assert (f"{failed} failed" in counts) == bool(failed), done.stdout
    assert f"{skipped} skipped" in counts


def test_a_module_that_skips_itself_counts_too(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("import pytest\npytest.importorskip('mlx_absent')\n")
    environ = {**os.environ, "INFERFLUX_TEST_REQUIRE": "mlx"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.support.require", "-c", "/dev/null"]
    command += ["--rootdir", str(tmp_path), str(tmp_path), "-p", "no:cacheprovider"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=root, check=False)
    assert "INFERFLUX_TEST_REQUIRE asks for mlx" in done.stdout
