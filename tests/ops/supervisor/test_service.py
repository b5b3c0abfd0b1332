"""A child is kept running, told apart by its first start, and drained."""

import asyncio
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.errors import CannotStart
from ops.supervisor import service as module
from ops.supervisor.output import Output
from ops.supervisor.service import Launch, Service
from tests.support.waiting import until

READY = "import json, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(json.dumps({'pid': 1}))\n"
WAIT = "import time; time.sleep(60)\n"
SERVE = f"import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n{READY}{WAIT}"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{READY}{WAIT}"


class Scene:
    """A service around a Python program, and what it reported."""

    def __init__(self, folder: Path, code: str) -> None:
        self.log = io.StringIO()
        self.ready = asyncio.Queue[int]()
        self.exits = asyncio.Queue[tuple[str, int]]()
        self.launches = 0
        self._folder = folder
        self.code = code
        self.service = Service(
            "child", self._launch, Output(self.log, form="console"), on_ready=self._on_ready, on_exit=self._on_exit
        )

    def _launch(self) -> Launch:
        self.launches += 1
        path = self._folder / f"ready-{self.launches}.json"
        return Launch(str(self.launches), [sys.executable, "-c", self.code, str(path)], path)

    def _on_ready(self, service: Service) -> None:
        self.ready.put_nowait(service.pid or 0)

    def _on_exit(self, service: Service, code: int) -> None:
        assert service.launch is not None
        self.exits.put_nowait((service.launch.id, code))


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Scene]:
    monkeypatch.setattr(module, "FIRST_BACKOFF_S", 0.01)
    return lambda code: Scene(tmp_path, code)


async def test_a_child_that_serves_is_ready_and_drains(scene: Callable[[str], Scene]) -> None:
    it = scene(SERVE)
    it.service.start()
    await it.service.first_ready()
    assert it.service.facts == {"pid": 1}
    await it.service.stop(30)
    assert await it.exits.get() == ("1", 0)
    assert it.service.pid is None
    assert it.launches == 1


async def test_a_child_that_cannot_start_is_not_tried_again_and_gives_its_reason(scene: Callable[[str], Scene]) -> None:
    it = scene("import sys; print('setting up'); print('error: no such model', file=sys.stderr); sys.exit(3)")
    it.service.start()
    with pytest.raises(CannotStart, match=r"^child: no such model$"):
        await it.service.first_ready()
    await it.service.stop(1)
    assert it.launches == 1
    assert "child | setting up" in it.log.getvalue()


async def test_a_crash_without_a_word_names_the_exception(scene: Callable[[str], Scene]) -> None:
    it = scene("raise RuntimeError('the device is gone')")
    it.service.start()
    with pytest.raises(CannotStart, match=r"RuntimeError: the device is gone \(exit code 1\)"):
        await it.service.first_ready()
    await it.service.kill()


async def test_a_child_that_dies_later_is_started_again(scene: Callable[[str], Scene]) -> None:
    it = scene(SERVE)
    it.service.start()
    for number in range(1, 4):
        pid = await it.ready.get()
        assert it.launches == number
        os.kill(pid, signal.SIGKILL)
        assert await it.exits.get() == (str(number), -9)
        assert it.service.facts is None
    await it.ready.get()
    await it.service.stop(30)


async def test_a_child_that_has_ended_serves_no_more_although_its_output_is_still_open(
    scene: Callable[[str], Scene],
) -> None:
    heir = "import subprocess; pid = subprocess.Popen(['sleep', '60']).pid\n"
    it = scene(heir + SERVE.replace("{'pid': 1}", "{'pid': pid}"))
    it.service.start()
    await it.service.first_ready()
    facts, pid = it.service.facts, it.service.pid
    assert facts is not None and pid is not None
    os.kill(pid, signal.SIGKILL)
    await until(lambda: it.service.pid is None)
    assert it.service.facts is None
    os.kill(facts["pid"], signal.SIGKILL)
    assert await it.exits.get() == ("1", -9)
    await it.service.stop(30)


async def test_a_child_that_does_not_drain_is_killed(scene: Callable[[str], Scene]) -> None:
    it = scene(STUBBORN)
    it.service.start()
    await it.service.first_ready()
    await it.service.stop(0.05)
    assert (await it.exits.get())[1] == -9


async def test_stopping_before_it_is_ready_ends_it(scene: Callable[[str], Scene]) -> None:
    it = scene("import time; time.sleep(60)")
    it.service.start()
    await until(lambda: it.service.pid is not None)
    await it.service.stop(30)
    assert (await it.exits.get())[1] == -15


async def test_a_program_that_is_not_there_is_a_reason_too(
    scene: Callable[[str], Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/absent/python")
    it = scene("")
    it.service.start()
    with pytest.raises(CannotStart, match="No such file"):
        await it.service.first_ready()
    await it.service.stop(1)


async def test_long_lines_and_broken_characters_pass_through(scene: Callable[[str], Scene]) -> None:
    it = scene("import sys; sys.stdout.buffer.write(b'x' * 300_000 + b'\\n\\xff end'); sys.exit(3)")
    it.service.start()
    with pytest.raises(CannotStart):
        await it.service.first_ready()
    await it.service.stop(1)
    assert it.log.getvalue().count("x") == 300_000
    assert "\ufffd end" in it.log.getvalue()
