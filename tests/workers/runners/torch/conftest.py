"""Models in folders, opened once per module."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conformance.driver import Driver
from tests.support.models import why_no_torch
from workers.runners.base import RunnerSpec

if why_no_torch():
    collect_ignore_glob = ["test_*.py"]

OpenModel = Callable[..., Driver]
Report = Callable[[str, object], None]


@pytest.fixture
def report(record_property: Report) -> Report:
    """Records a measured figure in the test's report, and shows it under `-s`."""

    def tell(name: str, value: object) -> None:
        record_property(name, value)
        print(f"\n{name}: {value}", end="", flush=True)

    return tell


@pytest.fixture(scope="module")
def open_model() -> Iterator[OpenModel]:
    """Opens a model on one thread, closed when the module is done."""
    from workers.runners.torch.runner import TorchRunner

    with ExitStack() as stack:

        def open_(source: Path, *, has_kernel: bool = True, **spec: object) -> Driver:
            runner = TorchRunner(has_kernel=has_kernel)
            opened = runner.open(RunnerSpec("model", str(source), **{"threads": 1, "gpu_layers": 0, **spec}))  # type: ignore[arg-type]
            stack.callback(runner.close)
            return Driver(runner, opened)

        yield open_
