"""Models: a tiny one made here, and the real one from its package. Each is loaded once per module."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.models import find_model, why_no_llama
from tests.workers.runners.llama_cpp.driver import Driver
from tests.workers.runners.llama_cpp.gguf_file import write_tiny_model
from workers.runners.base import RunnerSpec
from workers.runners.llama_cpp.runner import LlamaCppRunner
from workers.runners.llama_cpp.tuned import TuningRequest
from workers.runners.llama_cpp.tuner import Outcome

OpenModel = Callable[..., Driver]


def by_default(request: TuningRequest) -> Outcome:
    """A `tune` that measures nothing: what a model computes is the same in every test."""
    return Outcome(request.choices.default, "not measured", is_final=True)


@pytest.fixture(scope="session")
def llama_cpp_installed() -> None:
    if find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed; run: make setup")


@pytest.fixture(scope="session")
def real_model(llama_cpp_installed: None) -> Path:
    path = find_model()
    if path is None:
        pytest.skip(why_no_llama() or "")
    return path


@pytest.fixture(scope="session")
def tiny_model(llama_cpp_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="session")
def cache_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache") / "trial.json"


@pytest.fixture(scope="module")
def open_model(cache_file: Path) -> Iterator[OpenModel]:
    """Opens a model, closed when the module is done.

    On one thread unless asked: two that do not have a processor each wait for each other at every node of the graph.
    Not tuned.
    """
    with ExitStack() as stack:

        def open_(path: Path, **spec: object) -> Driver:
            runner = LlamaCppRunner(cache_file=cache_file, tune=by_default)
            opened = runner.open(RunnerSpec("model", str(path), **{"threads": 1, **spec}))
            stack.callback(runner.close)
            return Driver(runner, opened)

        yield open_


@pytest.fixture(scope="module")
def opened_tiny(open_model: OpenModel, tiny_model: Path) -> Driver:
    return open_model(tiny_model, context=512, sequences=8)


@pytest.fixture(scope="module")
def opened_unified(open_model: OpenModel, tiny_model: Path) -> Driver:
    """Too little memory for a buffer per sequence, or so it is told."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workers.runners.llama_cpp.sizing.KV_SHARE", 1e-9)
        return open_model(tiny_model, context=512, sequences=8)


@pytest.fixture
def tiny(opened_tiny: Driver) -> Iterator[Driver]:
    """The tiny model in split layout: 8 sequences of up to 512 tokens."""
    yield opened_tiny
    opened_tiny.release_all()


@pytest.fixture
def unified(opened_unified: Driver) -> Iterator[Driver]:
    """The tiny model in unified layout: 8 sequences share 512 tokens."""
    yield opened_unified
    opened_unified.release_all()


@pytest.fixture(params=["split", "unified"])
def either(request: pytest.FixtureRequest) -> Driver:
    """The tiny model in each layout."""
    driver: Driver = request.getfixturevalue("tiny" if request.param == "split" else "unified")
    return driver


@pytest.fixture(scope="module")
def opened_real(open_model: OpenModel, real_model: Path) -> Driver:
    return open_model(real_model, context=1024, sequences=16)


@pytest.fixture
def real(opened_real: Driver) -> Iterator[Driver]:
    """The real model in split layout: 16 sequences of up to 1,024 tokens."""
    yield opened_real
    opened_real.release_all()
