import asyncio
import os
import signal
import stat
import sys
from pathlib import Path

import pytest

from broker.connection import BrokerConfig, Connection
from broker.errors import BrokerUnavailable
from broker.roles import Role
from broker.server import EmbeddedServer
from tests.support.waiting import until

pytestmark = pytest.mark.nats


async def test_it_is_healthy_while_it_runs_and_keeps_port_and_data(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    url = await server.start()
    assert await server.healthy()
    await server.kill()
    assert server.pid is None
    assert not await server.healthy()
    assert await server.start() == url
    await server.stop()
    assert not await server.healthy()


async def test_a_taken_port_is_named_in_one_line(tmp_path: Path) -> None:
    first = EmbeddedServer(tmp_path / "first")
    await first.start()
    second = EmbeddedServer(tmp_path / "second", port=first.port)
    with pytest.raises(BrokerUnavailable, match="address already in use") as caught:
        await second.start()
    assert "\n" not in str(caught.value)
    assert second.pid is None
    await first.stop()


async def test_a_failed_start_can_be_repeated(tmp_path: Path) -> None:
    first = EmbeddedServer(tmp_path / "first")
    await first.start()
    second = EmbeddedServer(tmp_path / "second", port=first.port)
    with pytest.raises(BrokerUnavailable):
        await second.start()
    await first.stop()
    await second.start()
    assert await second.healthy()
    await second.stop()


async def test_its_files_are_private(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    await server.start()
    for name in ("server.conf", "creds/edge", "server.log"):
        assert stat.S_IMODE((tmp_path / "nats" / name).stat().st_mode) == 0o600, name
    await server.stop()


async def test_wait_returns_when_it_dies_by_itself(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    await server.start()
    waiting = asyncio.create_task(server.wait())
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    assert await waiting == -signal.SIGKILL
    assert server.pid is None


async def test_the_account_shows_its_limits_to_the_topology(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    url = await server.start()
    connection = await Connection.open(BrokerConfig(url, Role.TOPOLOGY, "test", server.credentials))
    limits = (await connection.api("INFO"))["limits"]
    assert 0 < limits["max_storage"] < 1 << 50
    await connection.close()
    await server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has ended")
async def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    script = """
import asyncio, sys
from pathlib import Path
from broker.server import EmbeddedServer

async def main():
    server = EmbeddedServer(Path(sys.argv[1]))
    await server.start()
    print(server.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    root = Path(__file__).parents[2]
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), stdout=asyncio.subprocess.PIPE, cwd=root
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert _runs(pid)
    parent.kill()
    await parent.wait()
    await until(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_ctrl_c_for_its_owner_is_not_for_the_server(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    await server.start()
    assert server.pid is not None
    assert os.getpgid(server.pid) != os.getpgid(0)
    await server.stop()
