"""The issuer as a program that logs in sees it (OAuth 2.0 token, device and revocation endpoints)."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2

from ops.client.login.credentials import Login
from ops.errors import Failure
from schemas.loopback import is_loopback
from schemas.oidc_rules import check_issuer, is_trustworthy

TIMEOUT_S = 10.0
_DISCOVERY = "/.well-known/openid-configuration"


class NoAnswer(Failure):
    """The issuer could not be reached, or has a fault of its own: later it may be there."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """Endpoints as the issuer's own document names them."""

    issuer: str
    token_endpoint: str
    device_endpoint: str | None
    revocation_endpoint: str | None


def discover(issuer: str) -> Issuer:
    """Read an issuer's document. Raises Failure."""
    try:
        check_issuer(issuer)
    except ValueError as error:
        raise Failure(f"{issuer} is no issuer: {error}") from None
    answer = _send("GET", issuer.rstrip("/") + _DISCOVERY)
    document = _json(answer)
    if answer.status_code != 200 or document.get("issuer") != issuer:
        raise Failure(f"there is no OpenID issuer at {issuer}")
    token_endpoint = _endpoint(document, "token_endpoint")
    if token_endpoint is None:
        raise Failure(f"{issuer} names no trustworthy token_endpoint")
    return Issuer(
        issuer,
        token_endpoint,
        _endpoint(document, "device_authorization_endpoint"),
        _endpoint(document, "revocation_endpoint"),
    )


def post(url: str, fields: Mapping[str, str]) -> tuple[bool, dict[str, Any]]:
    """Send a form: whether it was granted, and the answer's JSON. Raises NoAnswer."""
    answer = _send("POST", url, fields)
    if answer.status_code >= 500 or answer.status_code == 429:
        raise NoAnswer(f"{url} answered {answer.status_code}")
    return answer.status_code == 200, _json(answer)


def login_of(issuer: Issuer, client_id: str, answer: Mapping[str, Any], former_refresh: str | None = None) -> Login:
    """The tokens of a token endpoint's answer. One that does not renew the renewing token leaves the former one."""
    access_token, lifetime = answer.get("access_token"), answer.get("expires_in")
    if not isinstance(access_token, str) or not access_token:
        raise Failure(f"{issuer.issuer} answered without an access token")
    refresh_token = answer.get("refresh_token")
    return Login(
        issuer=issuer.issuer,
        client_id=client_id,
        token_endpoint=issuer.token_endpoint,
        access_token=access_token,
        expires_at=time.time() + lifetime if isinstance(lifetime, int | float) else None,
        refresh_token=refresh_token if isinstance(refresh_token, str) else former_refresh,
        revocation_endpoint=issuer.revocation_endpoint,
    )


def problem(answer: Mapping[str, Any]) -> str:
    """What a refusal says, fit for a terminal."""
    text = f"{answer.get('error', 'no reason given')}: {answer.get('error_description', '')}".rstrip(": ")
    return printable(text)[:300]


def printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _send(method: str, url: str, fields: Mapping[str, str] | None = None) -> httpx2.Response:
    parts = urlsplit(url)
    # Reading all certificates takes a while, and without TLS there is nothing to verify.
    is_encrypted, is_local = parts.scheme == "https", is_loopback(parts.hostname or "")
    try:
        with httpx2.Client(verify=is_encrypted, timeout=TIMEOUT_S, trust_env=not is_local) as client:
            return client.request(method, url, data=fields, headers={"accept": "application/json"})
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise NoAnswer(f"{url}: {error or type(error).__name__}") from None


def _json(answer: httpx2.Response) -> dict[str, Any]:
    try:
        document = answer.json()
    except ValueError:
        document = None
    return document if isinstance(document, dict) else {}


def _endpoint(document: Mapping[str, Any], name: str) -> str | None:
    url = document.get(name)
    return url if isinstance(url, str) and is_trustworthy(url) else None
