"""The real model: measured on llama.cpp and on PyTorch, and what `up` makes of that."""

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ops.calibration.calibrator import Calibrator
from ops.calibration.choice import decide
from ops.calibration.key import key_of
from ops.calibration.results import FOLDER, Results
from ops.calibration.steps import Effort
from ops.calibration.verdict import Verdict
from ops.serving.machine import this_machine
from ops.serving.plan import plan_models
from ops.settings.loader import load
from tests.ops.calibration.figures import failed
from tests.support.models import find_model, why_no_llama, why_no_torch
from tests.system.stack import Stack, fetch, running, until

_MISSING = why_no_llama() or why_no_torch()
pytestmark = [
    pytest.mark.llama,
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(_MISSING), reason=_MISSING or ""),
]

RIVALS = ("llama_cpp", "torch")
ENVIRON = {
    "INFERFLUX_CALIBRATE": "on",
    # Not how fast this machine is: that it is measured at all, on however busy a machine.
    "INFERFLUX_RUNTIME__CALIBRATE_LIMIT_S": "600",
}
CONFIG = "{models: {small: {source: %s, sequences: 2, context: 256, threads: 1}}}"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "server.yaml"
    path.write_text(CONFIG % find_model())
    return path


def test_it_is_measured_and_up_serves_it_so(tmp_path: Path, config: Path) -> None:
    data_dir = tmp_path / "data"
    settings = load(ENVIRON, {"--config": str(config), "--data-dir": str(data_dir)})
    results, device = Results(data_dir), this_machine().device
    (model,) = plan_models(settings)
    assert model.is_open and set(RIVALS) <= set(model.rivals)
    calibrator = Calibrator(
        settings.runtime,
        device,
        results,
        threading.Event(),
        lock=tmp_path / "lock",
        effort=Effort(steps=3, seconds=0.2),
    )
    verdict = calibrator.calibrate(replace(model, rivals=RIVALS))
    assert verdict is not None and verdict.backend in RIVALS, verdict
    for outcome in verdict.outcomes:
        assert outcome.figures is not None, outcome.reason
        assert outcome.figures.sequences == 2
        assert outcome.figures.memory_bytes > 50 * 2**20

    key = key_of(model.settings, model.source, model.rivals, device)
    known = _taking_torch(verdict, [backend for backend in model.rivals if backend not in RIVALS])
    assert results.put(key, known)
    with running(data_dir, "--config", str(config), env=ENVIRON) as stack:
        (served,) = fetch(f"{stack.url}/v1/models")["data"]
        (backend,) = served["backends"]
        assert backend["backend"] == "torch"
        assert backend["reason"] == f"automatic: fastest here, {known.told()}"
        log = stack.log_path.read_text()
        assert f"small on torch (automatic: fastest here, {known.told()})" in log
        assert "calibrating" not in log


def _taking_torch(verdict: Verdict, others: list[str]) -> Verdict:
    """As if llama.cpp had been slower, whichever was here, and the machine at rest."""
    outcomes = [*verdict.outcomes, *(failed(backend, "was not asked") for backend in others)]
    decided = decide(outcomes, verdict.sequences)
    return decided.model_copy(update={"backend": "torch", "is_final": True})


@pytest.fixture
def starting(tmp_path: Path, config: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path / "data", "--config", str(config), env=ENVIRON)
    stack.launch()
    yield stack
    stack.stop()


def test_a_start_can_be_stopped_while_it_measures(starting: Stack) -> None:
    assert starting.process is not None
    up = starting.process
    child = until(lambda: _measuring(up.pid), "a backend is measured", limit_s=120)
    up.send_signal(signal.SIGTERM)
    assert up.wait(120) == 0
    assert not Path(f"/proc/{child}").exists()
    assert not (starting.data_dir / FOLDER).exists()
    assert "calibrating small on" in starting.log_path.read_text()


def _measuring(parent: int) -> int | None:
    """A child of `up` that measures."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state = (path / "stat").read_text().rsplit(")", 1)[1].split()
            if int(state[1]) == parent and b"ops.calibration.child" in (path / "cmdline").read_bytes():
                return int(os.path.basename(path))
        except OSError:
            continue
    return None
