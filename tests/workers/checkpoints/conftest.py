"""The real model as a checkpoint, and llama.cpp to compare with."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.models import find_model, why_no_llama
from tests.workers.runners.llama_cpp.conftest import by_default
from tests.workers.runners.llama_cpp.driver import Driver
from workers.checkpoints import Checkpoint, open_checkpoint
from workers.runners.base import RunnerSpec
from workers.runners.remembered import Remembered

OpenModel = Callable[[Path], Driver]


@pytest.fixture(scope="session", autouse=True)
def packages() -> None:
    """What reading model files needs beyond the base install."""
    absent = [name for name in ("gguf", "tokenizers") if find_spec(name) is None]
    if absent:
        pytest.skip(f"{' and '.join(absent)} not installed, which the extra torch brings")


@pytest.fixture(scope="session")
def remembered(tmp_path_factory: pytest.TempPathFactory) -> Remembered:
    return Remembered(tmp_path_factory.mktemp("cache") / "remembered.json")


@pytest.fixture(scope="session")
def real_model() -> Path:
    path = find_model()
    if path is None or find_spec("llama_cpp") is None:
        pytest.skip(why_no_llama() or "")
    return path


@pytest.fixture(scope="session")
def real(real_model: Path, remembered: Remembered) -> Checkpoint:
    return open_checkpoint(real_model, remembered)


@pytest.fixture(scope="module")
def open_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenModel]:
    """Opens a file with llama.cpp, closed when the module is done."""
    if find_spec("llama_cpp") is None:
        pytest.skip(why_no_llama() or "")
    from workers.runners.llama_cpp.runner import LlamaCppRunner

    cache_file = tmp_path_factory.mktemp("cache") / "trial.json"
    with ExitStack() as stack:

        def open_(path: Path) -> Driver:
            runner = LlamaCppRunner(cache_file=cache_file, tune=by_default)
            opened = runner.open(RunnerSpec("model", str(path), threads=1, sequences=1, context=256))
            stack.callback(runner.close)
            return Driver(runner, opened)

        yield open_
