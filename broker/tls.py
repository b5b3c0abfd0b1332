"""TLS towards a NATS server."""

import ssl
from pathlib import Path
from typing import NamedTuple

from broker.errors import BrokerUnsuitable
from broker.pem import PemUnusable, load_pair, reason, require_readable


class TlsFiles(NamedTuple):
    """Paths of PEM files. `ca` None means the system's authorities; `cert` and `key` are for a server that asks."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Raises BrokerUnsuitable, naming the file that is of no use."""
    try:
        context = _trusting(files.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if files.cert is not None and files.key is not None:
            load_pair(context, files.cert, files.key)
    except PemUnusable as error:
        raise BrokerUnsuitable(f"TLS to NATS: {error}") from None
    return context


def _trusting(ca: Path | None) -> ssl.SSLContext:
    """Raises PemUnusable."""
    if ca is not None:
        require_readable(ca)
    try:
        return ssl.create_default_context(cafile=ca)
    except ssl.SSLError as error:
        raise PemUnusable(f"{ca}: {reason(error)}") from None
