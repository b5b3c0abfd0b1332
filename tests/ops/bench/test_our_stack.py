"""What our own arms are told and say."""

from pathlib import Path

import pytest

from ops.bench.arms import make_arm
from ops.bench.errors import ArmUnavailable
from tests.ops.bench.figures import plan


def test_settings_are_those_of_the_plan_without_the_path() -> None:
    told = make_arm("ours", plan(model=Path("/some/where/small.gguf")), None).describe()
    assert '{"source": "small.gguf", "sequences": 8, "context": 256, "threads": 2}' in told["settings"]
    assert told["version"].startswith("InferFlux ")
    assert "nats-server" in told["version"]


def test_echo_needs_no_model() -> None:
    arm = make_arm("echo", plan(model=None), None)
    arm.check()
    assert '"source": "echo", "sequences": 8' in arm.describe()["settings"]
    assert arm.num_repeats > make_arm("ours", plan(), None).num_repeats


def test_ours_without_a_model_is_unavailable() -> None:
    with pytest.raises(ArmUnavailable, match="make setup"):
        make_arm("ours", plan(model=None), None).check()


def test_a_model_that_cannot_be_served_makes_ours_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "not.gguf"
    path.write_text("text")
    with pytest.raises(ArmUnavailable, match="not a GGUF file"):
        make_arm("ours", plan(model=path), None).check()
