"""What may be said about an issuer of tokens. Imports little: command lines read it."""

from urllib.parse import urlsplit

from schemas.loopback import is_loopback

# Signatures with a key pair. A shared secret (HS*) would let every holder of it make tokens, and `none` anybody.
ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
DEFAULT_ALGORITHMS = ("RS256", "ES256", "EdDSA")
# What the header of an access token may call it. Other kinds, such as logout+jwt, are signed with the same keys.
TOKEN_TYPES = ("JWT", "at+jwt")
SCOPES = ("generate", "read", "admin")
ADMIN = "admin"
MAX_LEEWAY_S = 300


def check_issuer(issuer: str) -> None:
    """Raises ValueError unless it is `https://…`, or `http://…` on this machine, without query and fragment."""
    if not is_trustworthy(issuer) or "?" in issuer:
        raise ValueError("a URL that begins with https:// (http:// only on this machine) is expected")


def check_resource(resource: str) -> None:
    """Raises ValueError unless it is a plain http or https URL."""
    _split(resource)


def is_trustworthy(url: str) -> bool:
    """Whether nobody on the way can change what comes from there."""
    try:
        scheme, host = _split(url)
    except ValueError:
        return False
    return scheme == "https" or is_loopback(host)


def _split(url: str) -> tuple[str, str]:
    """Scheme and host of a plain URL. Raises ValueError."""
    parts = urlsplit(url)
    is_plain = url.isascii() and url.isprintable() and " " not in url and "@" not in parts.netloc
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_plain or "#" in url:
        raise ValueError("a URL such as https://host/path is expected")
    assert parts.port is None or parts.port >= 0  # raises ValueError when it is no port
    return parts.scheme, parts.hostname
