"""Issuers that misbehave."""

import json
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from producer.auth.oidc import fetching
from producer.auth.oidc.discovery import PATH, Issuer
from producer.auth.oidc.fetching import MAX_BYTES, IssuerUnavailable, fetch_json
from tests.producer.oidc.conftest import answering, http
from tests.support.certificates import Authority
from tests.support.oidc import Keys
from tests.support.ports import free_port

JWKS = json.dumps(Keys().jwks(private=False)).encode()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (http("302 Found", b"", "location: /elsewhere"), "answered 302"),
        (http("500 Oh", b"{}"), "answered 500"),
        (http("200 OK", b"x" * (MAX_BYTES + 1)), "more than"),
        (http("200 OK", b"<html>"), "not JSON"),
        (http("200 OK", b"[]"), "not a JSON object"),
        (http("200 OK", b'{"a":' * 5000), "not JSON"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}", "http://"),
        (b"nonsense\r\n\r\n", "http://"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"fffff\r\n" + b"x" * 0xFFFFF, "more than"),
    ],
)
async def test_an_answer_that_is_none(raw: bytes, words: str) -> None:
    async with answering(lambda _: raw) as url:
        with pytest.raises(IssuerUnavailable, match=words):
            await fetch_json(f"{url}/jwks")


async def test_an_issuer_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "TIMEOUT_S", 0.05)
    async with answering(lambda _: b"") as url:
        with pytest.raises(IssuerUnavailable, match=r"http://"):
            await fetch_json(url)


async def test_nothing_listens() -> None:
    with pytest.raises(IssuerUnavailable, match="connection"):
        await fetch_json(f"http://127.0.0.1:{free_port()}/")


async def test_an_issuer_whose_certificate_nobody_trusts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(authority.issue("issuer").both)
    async with answering(lambda _: http("200 OK", JWKS), tls) as url:
        with pytest.raises(IssuerUnavailable, match="certificate"):
            await fetch_json(url)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    fetching.tls_context.cache_clear()
    async with answering(lambda _: http("200 OK", JWKS), tls) as url:
        assert await fetch_json(url) == json.loads(JWKS)
    fetching.tls_context.cache_clear()


def publishing(document: Callable[[], dict[str, object]], seen: list[bytes] | None = None) -> Callable[[bytes], bytes]:
    def answer(line: bytes) -> bytes:
        if seen is not None:
            seen.append(line.split()[1])
        return http("200 OK", json.dumps(document()).encode() if PATH.encode() in line else JWKS)

    return answer


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"issuer": "https://other.test"}, "another issuer"),
        ({"jwks_uri": "http://issuer.test/jwks"}, "trustworthy"),
        ({"jwks_uri": "file:///etc/passwd"}, "trustworthy"),
        ({"jwks_uri": 7}, "trustworthy"),
        ({"jwks_uri": None}, "trustworthy"),
    ],
)
async def test_a_discovery_document_that_leads_astray(changes: dict[str, object], words: str) -> None:
    document: dict[str, object] = {}
    async with answering(publishing(lambda: document)) as url:
        document |= {"issuer": url, "jwks_uri": f"{url}/jwks", **changes}
        with pytest.raises(IssuerUnavailable, match=words):
            await Issuer(url).load_keys()


async def test_where_the_keys_are_is_remembered_until_they_are_not_there() -> None:
    seen: list[bytes] = []
    document: dict[str, object] = {}
    async with answering(publishing(lambda: document, seen)) as url:
        document |= {"issuer": f"{url}/realms/a/", "jwks_uri": f"{url}/jwks?p=1"}
        issuer = Issuer(f"{url}/realms/a/")
        assert len(await issuer.load_keys()) == len(await issuer.load_keys()) == 3
    assert seen == [b"/realms/a/.well-known/openid-configuration", b"/jwks?p=1", b"/jwks?p=1"]
    with pytest.raises(IssuerUnavailable, match="jwks"):
        await issuer.load_keys()
    with pytest.raises(IssuerUnavailable, match="openid-configuration"):
        await issuer.load_keys()
