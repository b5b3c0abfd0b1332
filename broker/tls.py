"""TLS towards a NATS server."""

import ssl
from pathlib import Path
from typing import NamedTuple

from broker.errors import BrokerUnsuitable


class TlsFiles(NamedTuple):
    """Paths of PEM files. `ca` None means the system's authorities; `cert` and `key` are for a server that asks."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Raises BrokerUnsuitable, naming the file that is of no use."""
    for path in files:
        if path is not None:
            _require_readable(path)
    try:
        context = ssl.create_default_context(cafile=files.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if files.cert is not None:
            context.load_cert_chain(files.cert, files.key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        shown = ", ".join(str(path) for path in files if path is not None)
        raise BrokerUnsuitable(f"TLS to NATS: {shown}: not usable as certificate and key ({error})") from None
    return context


def _require_readable(path: Path) -> None:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise BrokerUnsuitable(f"TLS to NATS: {path}: {error.strerror}") from None


def _no_password() -> str:
    raise ValueError("the key is encrypted")
