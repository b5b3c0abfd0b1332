"""The watch over the embedded nats-server."""

import asyncio
import errno
import os
import signal
from pathlib import Path

import pytest

from ops.supervisor import broker_service
from ops.supervisor.broker_service import BrokerService

pytestmark = pytest.mark.nats


async def test_a_server_that_cannot_be_started_for_want_of_disk_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_service, "RETRY_S", 0.01)
    restarted = asyncio.Event()
    service = BrokerService(tmp_path, None, max_file_bytes=None, on_restart=restarted.set)
    await service.start()
    start, refusals = service.server.start, 2

    async def start_without_room() -> str:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return await start()

    monkeypatch.setattr(service.server, "start", start_without_room)
    assert service.server.pid is not None
    os.kill(service.server.pid, signal.SIGKILL)
    await restarted.wait()
    assert await service.server.healthy()
    await service.stop()
