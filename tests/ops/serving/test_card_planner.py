"""What one worker makes of the cards it is to serve."""

from pathlib import Path
from typing import Any

import pytest

from ops.calibration.results import Results
from ops.serving.plan import Planner
from ops.serving.sources import hub_of
from ops.serving.worker_models import CardPlanner
from ops.settings.loader import load
from schemas.control import ModelCard
from tests.ops.serving.machines import machine
from workers.config import NotForThisWorker
from workers.runners.base import RunnerError


def card(**fields: Any) -> ModelCard:
    return ModelCard.model_validate({"id": "m", "source": "echo:repeat", "created": 1, "origin": "admin", **fields})


def planner(folder: Path, *, flag: str = "auto", is_bound: bool = False) -> CardPlanner:
    settings = load({}, {"--backend": flag, "--data-dir": str(folder)})
    found = Planner(settings.runtime, machine(), hub_of(settings), Results(folder))
    return CardPlanner(lambda: found, (), is_bound=is_bound)


def planned(plan: CardPlanner, wanted: ModelCard) -> str:
    return plan(wanted, lambda stage, fraction: None).backend


@pytest.fixture
def gguf(tmp_path: Path) -> str:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF" + bytes(20))
    return str(path)


def test_a_process_keeps_to_what_it_began_with(tmp_path: Path, gguf: str) -> None:
    free, bound = planner(tmp_path), planner(tmp_path, is_bound=True)
    for plan in (free, bound):
        assert planned(plan, card()) == "echo"
    assert planned(free, card(id="other", source=gguf)) == "llama_cpp"
    with pytest.raises(NotForThisWorker, match="it needs torch, and this process runs"):
        planned(free, card(id="third", source=gguf, backend="torch"))
    with pytest.raises(NotForThisWorker, match="it needs llama_cpp, and this process runs echo"):
        planned(bound, card(source=gguf))


def test_another_backend_than_the_flags_is_refused_by_name(tmp_path: Path, gguf: str) -> None:
    plan = planner(tmp_path, flag="torch")
    with pytest.raises(RunnerError, match="model m asks for backend llama_cpp, and --backend torch goes over it"):
        planned(plan, card(source=gguf, backend="llama_cpp"))
    assert planned(plan, card(source=gguf)) == "torch"
    assert planned(plan, card(source=gguf, backend="llama_cpp", origin="config")) == "torch"
