"""Credential files `<directory>/<role>`, mode 0600, with user and password; or a `.creds` file of an external NATS.

A batch publisher's is called `batch-<tenant>`. Beside a file that is being replaced lies its successor, `<role>.next`.
"""

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from broker.errors import BrokerUnsuitable
from broker.roles import FIXED_USERS, Role, User
from broker.subjects import decode_token

_JWT_MARK = "BEGIN NATS USER JWT"


class Login(NamedTuple):
    user: str
    password: str


def create_credentials(directory: Path, tenants: Sequence[str] = ()) -> dict[User, Login]:
    """Logins of all roles, of the tenants given, and of those that have one already; made where missing.

    Stable over restarts. The directory is 0700, each file 0600.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    users = dict.fromkeys([*FIXED_USERS, *known_tenants(directory), *(User(Role.BATCH, each) for each in tenants)])
    return {user: _read_or_create(directory / user.name, user) for user in users}


def known_tenants(directory: Path) -> list[User]:
    """The batch publishers that have a login."""
    prefix = f"{Role.BATCH}-"
    names = sorted(path.name for path in directory.glob(f"{prefix}*") if "." not in path.name)
    return [User(Role.BATCH, decode_token(name.removeprefix(prefix))) for name in names]


def accepted_logins(directory: Path) -> list[tuple[User, Login]]:
    """What a server has to take: the logins of all users, and those that are to replace them."""
    logins = list(create_credentials(directory).items())
    successors = [(user, next_file(directory, user)) for user, _ in logins]
    return [*logins, *((user, _parse(path.read_text(), path)) for user, path in successors if path.exists())]


def next_file(directory: Path, user: User) -> Path:
    return directory / f"{user.name}.next"


def find_login(credentials: Path, role: Role, tenant: str | None = None) -> Login | Path:
    """The login of a user from a directory of such files or one of them; a `.creds` file is returned as its path.

    Raises BrokerUnsuitable when there is none.
    """
    name = User(role, tenant).name
    path = credentials / name if credentials.is_dir() else credentials
    try:
        text = path.read_text()
    except OSError as error:
        raise BrokerUnsuitable(f"no credentials for role {name}: {path}: {error.strerror}") from error
    if _JWT_MARK in text:
        return path
    return _parse(text, path)


def new_password() -> str:
    """It begins with a letter: nats-server reads a variable that looks like a number as one."""
    return f"p{secrets.token_urlsafe(24)}"


def write_login(path: Path, login: Login) -> None:
    write_private(path, f"user: {login.user}\npassword: {login.password}\n")


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)


def _read_or_create(path: Path, user: User) -> Login:
    if path.exists():
        path.chmod(0o600)
        return _parse(path.read_text(), path)
    login = Login(user.name, new_password())
    write_login(path, login)
    return login


def _parse(text: str, path: Path) -> Login:
    fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    try:
        return Login(fields["user"].strip(), fields["password"].strip())
    except KeyError as error:
        raise BrokerUnsuitable(f"{path} has no line {error.args[0]!r}") from error
