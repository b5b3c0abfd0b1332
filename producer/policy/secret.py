"""What the policy document is encrypted with: a passphrase that people know, or random bytes in a file."""

import contextlib
import os
import secrets
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from producer.config import PolicyConfig
from producer.policy.errors import NoSecret

_KEY_BYTES = 32


class SecretKind(IntEnum):
    """As it stands in a sealed document."""

    KEY_FILE = 1
    PASSPHRASE = 2

    @property
    def title(self) -> str:
        return "key file" if self is SecretKind.KEY_FILE else "passphrase"


@dataclass(frozen=True, slots=True)
class Secret:
    kind: SecretKind
    value: bytes = field(repr=False)

    @classmethod
    def of_passphrase(cls, passphrase: str) -> "Secret":
        return cls(SecretKind.PASSPHRASE, passphrase.encode("utf-8", "surrogatepass"))


def read_key_file(path: Path) -> Secret | None:
    """The random secret of this machine; None when there is none yet. Raises NoSecret when the file is of no use."""
    try:
        text = path.read_text("ascii").strip()
        value = bytes.fromhex(text)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NoSecret(f"{path}: {error.strerror}") from None
    except ValueError:
        value = b""
    if len(value) != _KEY_BYTES:
        raise NoSecret(f"{path} is not a policy key: {2 * _KEY_BYTES} hexadecimal digits are expected")
    return Secret(SecretKind.KEY_FILE, value)


def create_key_file(path: Path) -> Secret:
    """The random secret of this machine, made now if there is none, mode 0600. Raises NoSecret.

    Several processes may ask at once: the link decides whose it is, and no one sees half of one.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(_KEY_BYTES) + "\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise NoSecret(f"{path}: {error.strerror}") from None
    secret = read_key_file(path)
    assert secret is not None, "it was just made"
    return secret


def read_passphrase_file(path: Path) -> Secret:
    """Raises NoSecret when the file is of no use."""
    try:
        passphrase = path.read_text("utf-8").strip()
    except OSError as error:
        raise NoSecret(f"{path}: {error.strerror}") from None
    except ValueError:
        passphrase = ""
    if not passphrase:
        raise NoSecret(f"{path} holds no passphrase")
    return Secret.of_passphrase(passphrase)


def find_secret(config: PolicyConfig) -> Secret | None:
    """The configured secret, or that of this machine; None without either. Files are read now.

    Raises NoSecret when a file is of no use.
    """
    if config.passphrase_file is not None:
        return read_passphrase_file(config.passphrase_file)
    if config.passphrase is not None:
        return Secret.of_passphrase(config.passphrase)
    return read_key_file(config.key_file) if config.key_file is not None else None
