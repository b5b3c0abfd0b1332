"""pytest plug-in: how tests are dealt out to several processes (pytest-xdist).

A file's tests stay together, since they share what is slow to start. Tests of whole stacks, each several processes that
race and are killed, have two lanes: more at once would be in each other's way. The rest mostly waits, beside them.
"""

import zlib
from typing import Any

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

_STACKS = "tests/system"
_NUM_STACK_LANES = 2
# All files of such a folder look at one stack.
_SHARING = ("tests/ops/telemetry",)


class Lanes(LoadScopeScheduling):
    """Deals out files, in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        if file.startswith(f"{_STACKS}/"):
            return f"{_STACKS}/{zlib.crc32(file.encode()) % _NUM_STACK_LANES}"
        return next((folder for folder in _SHARING if file.startswith(f"{folder}/")), file)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole stacks first: they take longest."""
    items.sort(key=lambda item: not item.nodeid.startswith(f"{_STACKS}/"))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Any:
    config.option.loadscopereorder = False
    return Lanes(config, log)
