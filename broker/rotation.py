"""Exchanging logins while everything runs.

First the server takes both the old and the new one, then the file is replaced, then the server forgets the old one.
That closes the connections made with it; they come back with what the file says now.
"""

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from broker.connection import BrokerConfig, Connection
from broker.credentials import Login, find_login, new_password, next_file, write_login
from broker.errors import BrokerError, BrokerUnavailable
from broker.roles import User
from broker.server import write_users

_RELOAD_S = 15.0
_AGAIN_S = 0.05
_ATTEMPT_S = 2.0


def prepare(credentials: Path, users: Iterable[User]) -> None:
    """Give each user a successor to its login; one that has been prepared before stays."""
    for user in users:
        path = next_file(credentials, user)
        if not path.exists():
            # Names differ, since a server knows each by one password only.
            write_login(path, Login(f"{user.name}.{secrets.token_hex(4)}", new_password()))


def prepared(credentials: Path, users: Iterable[User]) -> list[User]:
    """Those that have one."""
    return [user for user in users if next_file(credentials, user).exists()]


def finish(credentials: Path, users: Iterable[User]) -> None:
    """Put successors in place. Only once the server takes them."""
    for user in prepared(credentials, users):
        next_file(credentials, user).replace(credentials / user.name)


async def rotate_embedded(url: str, pid: int, directory: Path, users: list[User]) -> None:
    """All of it, with the server `pid` whose files are in `directory`; returns when no old login opens anything.

    It may be repeated when it was interrupted. Raises BrokerUnavailable when nothing runs there, or does not follow.
    """
    credentials = directory / "creds"
    # A signal must not hit whatever has the number of a server that is gone.
    if not (await _takes_any(url, credentials, users) and list((directory / "ports").glob(f"*_{pid}.ports"))):
        raise BrokerUnavailable(f"no nats-server of {directory} runs at {url}")
    old = [(user, login) for user in users if isinstance(login := find_login(credentials, *user), Login)]
    prepare(credentials, users)
    _reload(pid, directory)
    for user in users:
        await _until_taken(url, user, next_file(credentials, user))
    finish(credentials, users)
    _reload(pid, directory)
    for user, login in old:
        await _until_refused(url, user, login)


async def _takes_any(url: str, credentials: Path, users: list[User]) -> bool:
    for user in users:
        if await _opens(BrokerConfig(url, user.role, "inferflux-rotation", credentials, user.tenant)):
            return True
    return False


def _reload(pid: int, directory: Path) -> None:
    write_users(directory)
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError as error:
        raise BrokerUnavailable(f"nats-server (pid {pid}) cannot be told: {error.strerror}") from None


async def _until_taken(url: str, user: User, file: Path) -> None:
    deadline = time.monotonic() + _RELOAD_S
    while not await _opens(BrokerConfig(url, user.role, "inferflux-rotation", file, user.tenant)):
        await _pause(deadline, f"nats-server does not take the new login of {user.name}")


async def _until_refused(url: str, user: User, login: Login) -> None:
    deadline = time.monotonic() + _RELOAD_S
    with_login = url.replace("://", f"://{quote(login.user)}:{quote(login.password)}@", 1)
    while await _opens(BrokerConfig(with_login, user.role, "inferflux-rotation", None, user.tenant)):
        await _pause(deadline, f"nats-server still takes the old login of {user.name}")


async def _opens(config: BrokerConfig) -> bool:
    try:
        connection = await Connection.open(config, timeout_s=_ATTEMPT_S)
    except BrokerError:
        return False
    await connection.close()
    return True


async def _pause(deadline: float, problem: str) -> None:
    if time.monotonic() > deadline:
        raise BrokerUnavailable(f"{problem} after {_RELOAD_S:.0f} s; see its log")
    await asyncio.sleep(_AGAIN_S)
