"""Where a server is, as people write it, and what is wrong with its TLS."""

import ssl
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ops.errors import Failure

DEFAULT_PORT = 8080
_PORTS = {"http": 80, "https": 443}


class Address(NamedTuple):
    host: str
    url: str


def parse_address(host: str, port: int | None) -> Address:
    """`host` is a name, or `https://name[:port]`, whose port is the scheme's when there is none. Raises Failure."""
    if "://" not in host:
        bare = host.strip("[]")
        return Address(bare, f"http://{_bracketed(bare)}:{port or DEFAULT_PORT}")
    parts = urlsplit(host)
    try:
        found = parts.port
    except ValueError:
        found = -1
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or found == -1 or parts.username:
        raise Failure(f"{host} is no address such as https://name:port")
    return Address(
        parts.hostname, f"{parts.scheme}://{_bracketed(parts.hostname)}:{found or port or _PORTS[parts.scheme]}"
    )


def client_tls(ca_file: Path | None, client_cert: Path | None) -> ssl.SSLContext | None:
    """None where the system's own will do. Raises Failure, naming the file that is of no use."""
    if ca_file is None and client_cert is None:
        return None
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (ssl.SSLError, OSError) as error:
        raise Failure(f"{ca_file}: {_why(error)}") from None
    if client_cert is not None:
        try:
            context.load_cert_chain(client_cert)
        except (ssl.SSLError, OSError) as error:
            raise Failure(f"{client_cert}: {_why(error)}") from None
    return context


def tls_reason(error: BaseException | None) -> str | None:
    """What TLS made of a connection that did not come about; None when it was not TLS."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"the server's certificate is not trusted ({error.verify_message}); see --ca-file"
        if isinstance(error, ssl.SSLError):
            return f"no TLS could be agreed upon ({(error.reason or str(error)).lower().replace('_', ' ')})"
        error = error.__cause__ or error.__context__
    return None


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return "holds no usable certificate"
    return str(getattr(error, "strerror", None) or error)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
