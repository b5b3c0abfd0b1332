"""Where and as whom a process connects to the broker, and what the client library is told of it."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.address import login_in
from broker.credentials import Login, find_login
from broker.errors import BrokerUnsuitable
from broker.roles import Role, inbox_prefix
from broker.tls import TlsFiles, client_context


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """Where and as whom to connect. `url` may list several servers, comma-separated.

    `credentials` is a directory of role files, one such file, or a `.creds` file; None takes the login from the url.
    They are read again for each connection, so a login may change. `tenant` is whose batches are published. With `tls`
    nothing is sent to a server that speaks none.
    """

    url: str
    role: Role
    name: str
    credentials: Path | None = None
    tenant: str | None = None
    tls: TlsFiles | None = None


def connect_options(config: BrokerConfig) -> dict[str, Any]:
    """Raises BrokerUnsuitable: no login, or a file of TLS that is of no use."""
    options: dict[str, Any] = {
        "servers": config.url.split(","),
        "name": config.name,
        "inbox_prefix": inbox_prefix(config.role, config.tenant),
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": 0.1,
        "ping_interval": 5,
        "max_outstanding_pings": 2,
    }
    if config.credentials is None:
        # One login for all servers: those of a cluster that the url does not name are used as well.
        options |= login_in(config.url)
    else:
        options |= _login_options(config, config.credentials)
    if config.tls is not None:
        options["tls"] = client_context(config.tls)
    return options


def _login_options(config: BrokerConfig, credentials: Path) -> dict[str, Any]:
    login = find_login(credentials, config.role, config.tenant)
    if isinstance(login, Path):
        return {"user_credentials": str(login)}
    held = _HeldLogin(config, credentials, login)
    return {"user": held.read_user, "password": held.read_password}


class _HeldLogin:
    """A login that is read again for each attempt to connect."""

    def __init__(self, config: BrokerConfig, credentials: Path, login: Login) -> None:
        self._config = config
        self._credentials = credentials
        self._login = login

    def read_user(self) -> str:
        """Asked for before the password."""
        with contextlib.suppress(BrokerUnsuitable):  # unreadable just now: the one before may still hold
            login = find_login(self._credentials, self._config.role, self._config.tenant)
            if isinstance(login, Login):
                self._login = login
        return self._login.user

    def read_password(self) -> str:
        return self._login.password
