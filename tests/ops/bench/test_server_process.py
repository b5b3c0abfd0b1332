"""A server under test ends with its block, whatever happens."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from ops.bench.cpu_time import cpu_seconds
from ops.bench.errors import ArmFailed
from ops.bench.server_process import ServerProcess, answers_ok, server_process

WAITS = "import time; print('up', flush=True); time.sleep(600)"
IGNORES_SIGTERM = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAITS}"

SLOW_TO_END = f"import signal; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), exit())); {WAITS}"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def words_of(log: Path) -> str:
    return log.read_text()


async def until_up(process: ServerProcess, log: Path) -> None:
    async def has_spoken() -> bool:
        return "up" in words_of(log)

    await process.wait_until(has_spoken)


async def never() -> bool:
    return False


async def test_it_ends_with_the_block(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with server_process(python(WAITS), log, os.environ) as process:
        await until_up(process, log)
        assert is_alive(process.pid)
        assert not await process.has_ended(within_s=0)
    assert not is_alive(process.pid)


async def test_it_ends_when_the_block_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with server_process(python(WAITS), tmp_path / "log", os.environ) as process:
            raise ZeroDivisionError
    assert not is_alive(process.pid)


async def test_what_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with server_process(python(IGNORES_SIGTERM), log, os.environ) as process:
        await until_up(process, log)
        await process.stop(limit_s=0)
        assert not is_alive(process.pid)
    assert "SIGKILL" in process.failure()


async def test_a_cancel_while_it_stops_does_not_leave_it_running(tmp_path: Path) -> None:
    pids: list[int] = []
    stopping = asyncio.Event()

    async def use() -> None:
        async with server_process(python(SLOW_TO_END), tmp_path / "log", os.environ) as process:
            await until_up(process, tmp_path / "log")
            pids.append(process.pid)
            stopping.set()

    task = asyncio.create_task(use())
    await stopping.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_alive(pids[0])


async def test_an_early_end_is_told_with_its_last_words(tmp_path: Path) -> None:
    code = "import sys; print('no such model', file=sys.stderr); sys.exit(3)"
    async with server_process(python(code), tmp_path / "log", os.environ) as process:
        with pytest.raises(ArmFailed, match=r"ended before it was ready \(exit code 3.*no such model"):
            await process.wait_until(never)


async def test_waiting_has_a_limit(tmp_path: Path) -> None:
    async with server_process(python(WAITS), tmp_path / "log", os.environ) as process:
        with pytest.raises(ArmFailed, match=r"not ready within 0 s \(it still runs"):
            await process.wait_until(never, limit_s=0)


async def test_a_signal_is_named(tmp_path: Path) -> None:
    async with server_process(python(WAITS), tmp_path / "log", os.environ) as process:
        os.kill(process.pid, signal.SIGSEGV)
        assert await process.has_ended(within_s=30)
        assert "SIGSEGV" in process.failure()


async def test_what_is_no_program_fails_the_arm(tmp_path: Path) -> None:
    with pytest.raises(ArmFailed, match="cannot be run"):
        async with server_process([str(tmp_path / "nothing")], tmp_path / "log", os.environ):
            raise AssertionError("started")


async def test_nothing_listens_is_not_ready() -> None:
    assert not await answers_ok("http://127.0.0.1:1/health")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the processor time of other processes")
def test_processor_time_by_process() -> None:
    found = cpu_seconds({"own": os.getpid(), "gone": 2**30})
    assert found.keys() == {"own"}
    assert found["own"] > 0
