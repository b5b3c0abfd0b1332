"""PEM files of a TLS context: what is wrong with them is one line that names the file."""

import ssl
from pathlib import Path


class PemUnusable(Exception):
    """A file is missing, or is not what it should be."""


def load_pair(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    """A certificate with its chain, and its key, which must not be encrypted. Raises PemUnusable."""
    for path in (cert, key):
        require_readable(path)
    try:
        # A password would be asked for on the terminal.
        context.load_cert_chain(cert, key, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise PemUnusable(f"{cert} and {key}: {reason(error)}") from None


def load_authorities(context: ssl.SSLContext, path: Path) -> None:
    """Trust those of the file besides. Raises PemUnusable."""
    require_readable(path)
    try:
        context.load_verify_locations(path)
    except (ssl.SSLError, OSError) as error:
        raise PemUnusable(f"{path}: {reason(error)}") from None


def require_readable(path: Path) -> None:
    """Raises PemUnusable with what the system says, which OpenSSL does not."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise PemUnusable(f"{path}: {error.strerror}") from None


def _no_password() -> str:
    raise ValueError("the key is encrypted; give one that is not, readable by this user alone")


def reason(error: Exception) -> str:
    """What OpenSSL means, in words."""
    if isinstance(error, ssl.SSLError):
        return f"not a usable certificate or key ({error.reason or 'no PEM'})".lower().replace("_", " ")
    return str(error)
