"""Which API keys the edge takes, and the one that exists when nobody configured any."""

import os
import secrets
from pathlib import Path

from ops.errors import CannotStart
from ops.loopback import DEV_KEY, is_loopback
from ops.settings.api_keys import ApiKey
from ops.settings.settings import Settings

PEPPER_BYTES = 32


def effective_keys(settings: Settings) -> tuple[ApiKey, ...]:
    """The configured keys; on a loopback host, where there is neither one nor an issuer of tokens, the well-known one
    with all scopes.
    """
    if settings.auth.api_keys or settings.auth.oidc is not None:
        return settings.auth.api_keys
    if not is_loopback(settings.server.host):
        return ()
    return (ApiKey(DEV_KEY, scopes=("generate", "read", "admin"), name="dev", is_default=True),)


def require_keys(settings: Settings) -> None:
    """Raises CannotStart: nobody could call, since no key or issuer is configured, others can reach the host, and there
    is nothing yet that could hold a policy with keys. Else the edge decides, which sees the policy.
    """
    if effective_keys(settings) or settings.auth.oidc is not None or settings.nats.url is not None:
        return
    store = settings.policy.store or settings.data_dir / "policy.store"
    if not store.exists() and not (settings.data_dir / "nats").exists():
        raise CannotStart(
            f"no API key is configured and {settings.server.host} is not a loopback host: "
            "set auth.api_keys, INFERFLUX_API_KEYS or auth.oidc"
        )


def shown_key(*, takes_default_key: bool) -> str:
    """What a printed example may use: the well-known key where the edge takes it, never another."""
    return DEV_KEY if takes_default_key else "$INFERCTL_API_KEY"


def read_pepper(settings: Settings) -> bytes:
    """The secret of key hashes: configured, else `<data-dir>/pepper`, made on first use, mode 0600."""
    if settings.auth.key_pepper is not None:
        return settings.auth.key_pepper.encode()
    path = settings.data_dir / "pepper"
    try:
        return _read_or_create(path)
    except OSError as error:
        raise CannotStart(f"{path}: {error.strerror}") from None


def _read_or_create(path: Path) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # Two edges may start at once: the link decides whose pepper it is, and no one sees half of one.
        temporary = path.with_name(f".pepper.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(PEPPER_BYTES))
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return path.read_bytes().strip()
