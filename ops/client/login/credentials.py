"""Tokens of `inferctl login`, by server, in a file that only its user can read."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ops.client.address import parse_address
from ops.client.user_folder import user_folder
from ops.errors import Failure


@dataclass(frozen=True, slots=True)
class Login:
    """What the issuer gave, and where it gives the next. `expires_at` (Unix time) None: it did not say."""

    issuer: str
    client_id: str
    token_endpoint: str
    access_token: str = field(repr=False)
    expires_at: float | None = None
    refresh_token: str | None = field(default=None, repr=False)
    revocation_endpoint: str | None = None


class Credentials:
    """The file, read anew each time: other commands may change it. Raises Failure when it cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, server: str) -> Login | None:
        """The login at a server (`host:port`)."""
        entry = self._read().get(server)
        known = {each.name for each in fields(Login)}
        try:
            return None if entry is None else Login(**{name: entry[name] for name in entry if name in known})
        except TypeError:
            raise Failure(f"{self.path}: the entry of {server} is not complete; run inferctl logout") from None

    def put(self, server: str, login: Login | None) -> None:
        """Keep a login, or forget it. Only under `changing`."""
        servers = dict(self._read())
        servers.pop(server, None)
        if login is not None:
            servers[server] = asdict(login)
        self._write(servers)

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Nobody else changes it meanwhile: a token that renews another can often be used only once."""
        if not self.path.is_absolute():
            raise Failure("there is no home directory to keep logins in: set XDG_CONFIG_HOME")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise Failure(f"{self.path}: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _read(self) -> Mapping[str, Any]:
        try:
            document = json.loads(self.path.read_text(encoding="utf-8"))
            servers: Mapping[str, Any] = document["servers"]
            if not all(isinstance(entry, dict) for entry in servers.values()):
                raise ValueError
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            # Not ours to read, as in the home of another user: there is no login, and commands work without one.
            return {}
        except OSError as error:
            raise Failure(f"{self.path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Failure(f"{self.path} is damaged; remove it and run inferctl login") from None
        return servers

    def _write(self, servers: Mapping[str, Any]) -> None:
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({"servers": servers}, file, indent=1)
            temporary.replace(self.path)
        except OSError as error:
            raise Failure(f"{self.path}: {error.strerror}") from None


def user_credentials(environ: Mapping[str, str] = os.environ) -> Credentials:
    """Those of this user."""
    return Credentials(user_folder(environ) / "credentials.json")


def server_name(host: str, port: int | None) -> str:
    """Raises Failure for an address that is none."""
    return parse_address(host, port).url.lower().removeprefix("http://")
