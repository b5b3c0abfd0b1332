"""What our own arms are told and say."""

from pathlib import Path

import pytest

from ops.bench.arms import default_names, make_arm
from ops.bench.errors import ArmUnavailable
from tests.ops.bench.figures import plan
from tests.support.gguf import written
from workers.runners.registry import known_backends


def test_settings_are_those_of_the_plan_without_the_path() -> None:
    told = make_arm("ours", plan(model=Path("/some/where/small.gguf"))).describe()
    assert (
        '{"source": "small.gguf", "backend": "auto", "sequences": 8, "context": 256, "threads": 2}' in told["settings"]
    )
    assert told["version"].startswith("InferFlux ")
    assert "nats-server" in told["version"]


def test_echo_needs_no_model() -> None:
    arm = make_arm("echo", plan(model=None))
    arm.check()
    assert '"source": "echo", "backend": "echo", "sequences": 8' in arm.describe()["settings"]
    assert arm.num_repeats > make_arm("ours", plan()).num_repeats


def test_ours_without_a_model_is_unavailable() -> None:
    with pytest.raises(ArmUnavailable, match="make setup"):
        make_arm("ours", plan(model=None)).check()


def test_a_model_that_cannot_be_served_makes_ours_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "not.gguf"
    path.write_text("text")
    with pytest.raises(ArmUnavailable, match="not a GGUF file"):
        make_arm("ours", plan(model=path)).check()


@pytest.mark.parametrize(
    ("name", "backend"), [("ours-llama", "llama_cpp"), ("ours-torch", "torch"), ("ours-mlx", "mlx")]
)
def test_each_backend_is_an_arm(name: str, backend: str, tmp_path: Path) -> None:
    path = written(tmp_path)
    arm = make_arm(name, plan(model=path))
    assert f'"backend": "{backend}"' in arm.describe()["settings"]
    if known_backends()[backend].missing() is None:
        arm.check()
    else:
        with pytest.raises(ArmUnavailable, match=f"backend {backend}"):
            arm.check()


def test_every_backend_is_measured_by_default_mlx_on_a_mac_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert default_names() == ("ours-llama", "ours-torch", "llama-server", "llama-server-q8", "vllm", "echo")
    monkeypatch.setattr("sys.platform", "darwin")
    assert "ours-mlx" in default_names()
