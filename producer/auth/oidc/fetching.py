"""Reads the documents of an issuer, within bounds of size and time."""

import asyncio
import functools
import ssl
from typing import Any
from urllib.parse import urlsplit

import httpx2
import orjson

from schemas.loopback import is_loopback

MAX_BYTES = 256 * 1024
TIMEOUT_S = 5.0
_HEADERS = {
    "accept": "application/json, application/jwk-set+json",
    # What is compressed can be of any size.
    "accept-encoding": "identity",
    "user-agent": "inferflux",
}


class IssuerUnavailable(Exception):
    """The issuer did not answer, or not with what it should. The text is for the log."""


@functools.cache
def tls_context() -> ssl.SSLContext:
    """The certificates that this process trusts: the system's, or those of SSL_CERT_FILE and SSL_CERT_DIR."""
    return httpx2.create_ssl_context()


async def fetch_json(url: str) -> dict[str, Any]:
    """The JSON object at `url`; nothing is redirected. Raises IssuerUnavailable."""
    parts = urlsplit(url)
    is_local = is_loopback(parts.hostname or "")
    # Reading all certificates takes a while, in which no stream should wait. Without TLS there is nothing to verify.
    verify = await asyncio.to_thread(tls_context) if parts.scheme == "https" else False
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            # A proxy for the outside world has no business between two programs of one machine.
            httpx2.AsyncClient(
                verify=verify, trust_env=not is_local, timeout=TIMEOUT_S, follow_redirects=False
            ) as client,
            client.stream("GET", url, headers=_HEADERS) as response,
        ):
            if response.status_code != 200:
                raise IssuerUnavailable(f"{url} answered {response.status_code}")
            raw = await _read(response, url)
    except TimeoutError:
        raise IssuerUnavailable(f"{url} did not answer within {TIMEOUT_S:g} s") from None
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        raise IssuerUnavailable(f"{url}: {error or type(error).__name__}") from None
    try:
        document = orjson.loads(raw)
    except ValueError:
        raise IssuerUnavailable(f"{url} answered with something that is not JSON") from None
    if not isinstance(document, dict):
        raise IssuerUnavailable(f"{url} answered with something that is not a JSON object")
    return document


async def _read(response: httpx2.Response, url: str) -> bytes:
    raw = bytearray()
    async for piece in response.aiter_raw():
        raw += piece
        if len(raw) > MAX_BYTES:
            raise IssuerUnavailable(f"{url} answered with more than {MAX_BYTES} bytes")
    return bytes(raw)
