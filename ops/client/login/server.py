"""What a server says about the tokens it takes (RFC 9728)."""

from typing import Any, NamedTuple

from ops.client.address import parse_address
from ops.client.client import Client
from ops.errors import Failure

_PATH = "/.well-known/oauth-protected-resource"


class Wanted(NamedTuple):
    """Where and with what to log in; None and empty are what the server leaves open."""

    issuer: str
    client_id: str | None
    audience: str | None
    scopes: tuple[str, ...]


def read_wanted(client: Client) -> Wanted:
    """Raises Failure: nothing listens, no tokens are taken there, or it is not who it was taken for."""
    answer = client.probe(_PATH)
    if answer.status_code == 404:
        raise Failure(f"{client.base_url} takes API keys only: no issuer is configured there")
    document = client.json_of(answer)
    issuers = document.get("authorization_servers") if isinstance(document, dict) else None
    if not isinstance(issuers, list) or not issuers or not isinstance(issuers[0], str):
        raise Failure(f"{client.base_url} does not say whose tokens it takes")
    if not _is_same(str(document.get("resource")), client.base_url):
        # Somebody else's description: a token asked for by it might be handed to the wrong one.
        raise Failure(
            f"{client.base_url} calls itself {document.get('resource')!r:.200}: use that address, "
            "or name --issuer, --client-id and --audience"
        )
    return Wanted(
        issuers[0],
        _text(document.get("inferflux_client_id")),
        _text(document.get("inferflux_audience")),
        tuple(scope for scope in document.get("scopes_supported") or () if isinstance(scope, str)),
    )


def _is_same(address: str, other: str) -> bool:
    """Whether two addresses lead to one server: its scheme's port may stand in them or not."""
    try:
        return parse_address(address.lower(), None).url == parse_address(other.lower(), None).url
    except Failure:
        return False


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
