"""Credential files `<directory>/<role>`, mode 0600, with user and password; or a `.creds` file of an external NATS."""

import os
import secrets
from pathlib import Path
from typing import NamedTuple

from broker.errors import BrokerUnsuitable
from broker.roles import Role

_JWT_MARK = "BEGIN NATS USER JWT"


class Login(NamedTuple):
    user: str
    password: str


def create_credentials(directory: Path) -> dict[Role, Login]:
    """Logins of all roles, made where missing. Stable over restarts. The directory is 0700, each file 0600."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    return {role: _read_or_create(directory / role, role) for role in Role}


def find_login(credentials: Path, role: Role) -> Login | Path:
    """The login of `role` from a directory of role files or one such file; a `.creds` file is returned as its path.

    Raises BrokerUnsuitable when there is none.
    """
    path = credentials / role if credentials.is_dir() else credentials
    try:
        text = path.read_text()
    except OSError as error:
        raise BrokerUnsuitable(f"no credentials for role {role}: {path}: {error.strerror}") from error
    if _JWT_MARK in text:
        return path
    return _parse(text, path)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)


def _read_or_create(path: Path, role: Role) -> Login:
    if path.exists():
        path.chmod(0o600)
        return _parse(path.read_text(), path)
    login = Login(role.value, secrets.token_urlsafe(24))
    write_private(path, f"user: {login.user}\npassword: {login.password}\n")
    return login


def _parse(text: str, path: Path) -> Login:
    fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    try:
        return Login(fields["user"].strip(), fields["password"].strip())
    except KeyError as error:
        raise BrokerUnsuitable(f"{path} has no line {error.args[0]!r}") from error
