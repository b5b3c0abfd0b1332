"""Tokens at the door of a real edge, from a real provider and from those who are none."""

import asyncio
import json
import ssl
import time
import uuid
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from producer.auth.oidc import key_cache
from producer.auth.oidc.claims import owner_of
from producer.auth.oidc.key_cache import Timing
from producer.auth.oidc.verifier import OidcVerifier
from producer.config import TlsFiles
from producer.edge import trust
from schemas.errors import ErrorCode, error_kind
from tests.conftest import Broker
from tests.producer.conftest import CONFIG, KEY, READ_KEY, Edge, chat, put_model, running_edge, running_worker
from tests.producer.oidc.conftest import NEVER_AGAIN, policy_of, trusting_edge
from tests.producer.scripted_worker import Run, ScriptedWorker
from tests.support.certificates import Authority
from tests.support.oidc import (
    ALGORITHMS,
    AUDIENCE,
    SERVICE,
    Keys,
    Provider,
    claims,
    running_provider,
    sign,
    sign_with_secret,
    unsigned,
)
from tests.support.ports import free_port

pytestmark = [pytest.mark.nats]


async def ask(edge: Edge, token: str, path: str = "/v1/models") -> httpx2.Response:
    return await edge.client.get(path, headers={"authorization": f"Bearer {token}"})


def assert_refused(answer: httpx2.Response, code: ErrorCode, words: str = "") -> None:
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (error_kind(code).status, code, error_kind(code).type)
    assert words in error["message"]
    if answer.status_code == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer ")


async def test_a_good_token_generates_in_its_own_name(edge: Edge, worker: ScriptedWorker, provider: Provider) -> None:
    answer = await edge.post(chat(), authorization=f"Bearer {provider.token()}")
    assert answer.status_code == 200
    identity = worker.runs[-1].request.identity
    assert identity.owner == owner_of(provider.issuer, SERVICE)
    assert (identity.tenant, identity.scopes, identity.grants.models) == ("acme", ("generate", "read"), ("ec*",))


async def test_every_kind_of_signature(broker: Broker, worker: ScriptedWorker, provider: Provider) -> None:
    for audience, algorithm in ALGORITHMS.items():
        async with trusting_edge(broker, provider, audience=audience, algorithms=[algorithm]) as edge:
            assert (await ask(edge, provider.token(audience))).status_code == 200
            assert_refused(await ask(edge, provider.token(f"{AUDIENCE}/other")), ErrorCode.INVALID_TOKEN)


async def test_what_a_token_may_do_is_its_own(edge: Edge, provider: Provider) -> None:
    read_only = await edge.post(chat(), authorization=f"Bearer {provider.token(scope='read')}")
    assert_refused(read_only, ErrorCode.INSUFFICIENT_SCOPE)
    assert_refused(await ask(edge, provider.token(scope="")), ErrorCode.INSUFFICIENT_SCOPE)
    other_model = await edge.post(chat(), authorization=f"Bearer {provider.sign(models=['gpt-*'])}")
    assert_refused(other_model, ErrorCode.MODEL_NOT_ALLOWED)
    urgent = await edge.post(chat(priority=9), authorization=f"Bearer {provider.token()}")
    assert_refused(urgent, ErrorCode.PRIORITY_NOT_ALLOWED)


REFUSED: list[tuple[str, dict[str, Any], ErrorCode, str]] = [
    ("expired", {"exp": 1_700_000_000}, ErrorCode.EXPIRED_TOKEN, "expired"),
    ("never expires", {"exp": None}, ErrorCode.INVALID_TOKEN, "exp"),
    ("a word for a time", {"exp": "soon"}, ErrorCode.INVALID_TOKEN, "exp"),
    ("not yet", {"nbf": 4_000_000_000}, ErrorCode.INVALID_TOKEN, "nbf"),
    ("another audience", {"aud": "https://other.test"}, ErrorCode.INVALID_TOKEN, "aud"),
    ("no audience", {"aud": None}, ErrorCode.INVALID_TOKEN, "aud"),
    ("other audiences", {"aud": ["a", "b"]}, ErrorCode.INVALID_TOKEN, "aud"),
    ("another issuer", {"iss": "https://evil.test"}, ErrorCode.INVALID_TOKEN, "issuer"),
    ("no issuer", {"iss": None}, ErrorCode.INVALID_TOKEN, "issuer"),
    ("nobody", {"sub": None}, ErrorCode.INVALID_TOKEN, "sub"),
    ("a subject that is none", {"sub": 7}, ErrorCode.INVALID_TOKEN, "sub"),
    ("bound to a key", {"cnf": {"jkt": "x"}}, ErrorCode.INVALID_TOKEN, "cnf"),
    ("scopes that are none", {"scope": {"read": True}}, ErrorCode.INVALID_TOKEN, "scope"),
    ("a tenant that is none", {"tenant": ["a"]}, ErrorCode.INVALID_TOKEN, "tenant"),
    ("models that are none", {"models": [1]}, ErrorCode.INVALID_TOKEN, "models"),
    ("another type", {"header": {"typ": "logout+jwt"}}, ErrorCode.INVALID_TOKEN, "typ"),
    ("no key named", {"header": {"kid": None}}, ErrorCode.INVALID_TOKEN, "kid"),
    ("an unknown key", {"header": {"kid": "nope"}}, ErrorCode.INVALID_TOKEN, "publish"),
    ("a key of another type", {"header": {"kid": "ES256-1"}}, ErrorCode.INVALID_TOKEN, "publish"),
    ("an extension", {"header": {"b64": True, "crit": ["b64"]}}, ErrorCode.INVALID_TOKEN, "extension"),
]


async def test_a_token_that_is_not_good(edge: Edge, provider: Provider) -> None:
    for name, changes, code, words in REFUSED:
        token = provider.sign(**changes)
        answer = await ask(edge, token)
        try:
            assert_refused(answer, code, words)
        except AssertionError as error:
            raise AssertionError(f"{name}: {answer.text}") from error
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
        assert token not in answer.text


async def test_forgeries(edge: Edge, provider: Provider) -> None:
    rsa = provider.keys.by_algorithm["RS256"]
    good = claims(provider.issuer)
    # The public key, which everybody has, as if it were a shared secret, in each of its forms.
    public = rsa.as_pem(private=False)
    for secret in (public, public.strip(), json.dumps(rsa.as_dict(private=False)).encode(), b"secret", b""):
        for kid in ("RS256-1", "ES256-1", "nope"):
            answer = await ask(edge, sign_with_secret(secret, good, kid))
            assert_refused(answer, ErrorCode.INVALID_TOKEN, "must be signed with")
    real_signature = provider.sign().rpartition(".")[2]
    for algorithm in ("none", "None", "NONE", "nOnE", ""):
        for signature in ("", real_signature):
            answer = await ask(edge, unsigned(good, "RS256-1", algorithm) + signature)
            assert_refused(answer, ErrorCode.INVALID_TOKEN, "must be signed with")
    stranger = Keys().by_algorithm["RS256"]
    assert_refused(await ask(edge, sign(stranger, good)), ErrorCode.INVALID_TOKEN, "signature is wrong")
    # A key that the token brings along is not looked at.
    own_key = sign(stranger, good, jwk=stranger.as_dict(private=False))
    assert_refused(await ask(edge, own_key), ErrorCode.INVALID_TOKEN, "signature is wrong")
    first, second = provider.sign(sub="alice").split("."), provider.sign(sub="bob").split(".")
    assert_refused(await ask(edge, ".".join([*second[:2], first[2]])), ErrorCode.INVALID_TOKEN, "signature is wrong")
    assert_refused(await ask(edge, ".".join([*first[:2], ""])), ErrorCode.INVALID_TOKEN, "signature")


async def test_keys_work_beside_tokens_and_what_is_neither_is_no_key(edge: Edge) -> None:
    assert (await ask(edge, KEY)).status_code == 200
    answer = await ask(edge, "opaque-token")
    assert_refused(answer, ErrorCode.INVALID_API_KEY)
    assert f'resource_metadata="{edge.url}/.well-known/oauth-protected-resource"' in answer.headers["www-authenticate"]


async def test_the_scope_admin_is_only_given_where_it_may_be(
    broker: Broker, worker: ScriptedWorker, provider: Provider
) -> None:
    bearer = f"Bearer {provider.sign(scope='admin generate')}"
    async with trusting_edge(broker, provider) as edge:
        assert_refused(await edge.post(chat(priority=9), authorization=bearer), ErrorCode.PRIORITY_NOT_ALLOWED)
    async with trusting_edge(broker, provider, allow_admin=True) as edge:
        assert (await edge.post(chat(priority=9), authorization=bearer)).status_code == 200
    assert worker.runs[-1].request.identity.scopes == ("generate", "admin")


async def test_many_unknown_keys_ask_the_issuer_nothing(
    broker: Broker, worker: ScriptedWorker, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_cache, "TIMING", NEVER_AGAIN)
    before = provider.num_requests(), provider.num_requests("/.well-known/openid-configuration")
    async with trusting_edge(broker, provider) as edge:
        for number in range(100):
            answer = await ask(edge, provider.sign(header={"kid": f"key-{number}"}))
            assert_refused(answer, ErrorCode.INVALID_TOKEN, "publish")
        assert (await ask(edge, provider.token())).status_code == 200
    after = provider.num_requests(), provider.num_requests("/.well-known/openid-configuration")
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)


async def test_the_issuer_changes_its_keys(
    broker: Broker, worker: ScriptedWorker, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_cache, "TIMING", Timing(min_interval_s=0, unknown_s=0))
    async with trusting_edge(broker, provider) as edge:
        old = provider.token()
        assert (await ask(edge, old)).status_code == 200
        former = provider.keys
        provider.rotate(Keys(2))
        assert (await ask(edge, provider.token())).status_code == 200
        # Keys that are published no more open nothing, as soon as the edge has asked again.
        assert_refused(await ask(edge, old), ErrorCode.INVALID_TOKEN, "publish")
        provider.rotate(former)


async def test_an_issuer_that_is_down_and_comes_back(
    broker: Broker, worker: ScriptedWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_cache, "TIMING", Timing(min_interval_s=0))
    with running_provider(tmp_path, Keys(), port=free_port()) as provider:
        token = provider.token()
        provider.stop()
        async with trusting_edge(broker, provider) as edge:
            answer = await ask(edge, token)
            assert_refused(answer, ErrorCode.ISSUER_UNAVAILABLE, "API keys work")
            assert int(answer.headers["retry-after"]) >= 1
            assert (await ask(edge, KEY)).status_code == 200
            # What is wrong whoever signed it needs no issuer.
            assert_refused(await ask(edge, provider.sign(exp=1)), ErrorCode.EXPIRED_TOKEN)
            provider.start()
            assert (await ask(edge, token)).status_code == 200
            # Its keys hold while it is away.
            provider.stop()
            assert (await ask(edge, token)).status_code == 200
            answer = await ask(edge, provider.sign(header={"kid": "new"}))
            assert_refused(answer, ErrorCode.ISSUER_UNAVAILABLE)
            samples = (await ask(edge, READ_KEY, "/metrics")).text
            assert 'inferflux_issuer_requests_total{outcome="ok"} 1.0' in samples


async def test_a_stream_outlives_its_token(broker: Broker, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    now, expired = time.time(), asyncio.Event()
    monkeypatch.setattr(trust, "OidcVerifier", partial(OidcVerifier, clock=lambda: now))
    token = provider.sign(exp=now + 60)

    async def slow(run: Run) -> None:
        await run.say("one ")
        await expired.wait()
        await run.finish("two")

    await put_model(broker)
    async with running_worker(broker.worker, slow), trusting_edge(broker, provider, leeway_s=0) as edge:
        options = {"json": chat(stream=True), "headers": {"authorization": f"Bearer {token}"}}
        async with edge.client.stream("POST", "/v1/chat/completions", **options) as answer:
            assert answer.status_code == 200
            now += 61
            assert_refused(await ask(edge, token), ErrorCode.EXPIRED_TOKEN)
            expired.set()
            text = (await answer.aread()).decode()
        assert "two" in text and text.rstrip().endswith("[DONE]")


async def test_requests_belong_to_the_subject_and_not_to_the_token(broker: Broker, provider: Provider) -> None:
    gate = asyncio.Event()

    async def slow(run: Run) -> None:
        await run.say("one ")
        await gate.wait()
        await run.finish("two")

    def bearer(subject: str, **changes: Any) -> dict[str, str]:
        return {"authorization": f"Bearer {provider.sign(sub=subject, jti=str(uuid.uuid4()), **changes)}"}

    await put_model(broker)
    async with running_worker(broker.worker, slow), trusting_edge(broker, provider) as edge:
        options = {"json": chat(stream=True), "headers": bearer("alice")}
        async with edge.client.stream("POST", "/v1/chat/completions", **options) as answer:
            path = f"/v1/requests/{answer.headers['x-request-id']}"
            for stranger in (bearer("bob"), {"authorization": f"Bearer {KEY}"}):
                assert (await edge.client.delete(path, headers=stranger)).status_code == 404
            assert (await edge.client.delete(path, headers=bearer("alice"))).status_code == 200
            gate.set()
            await answer.aread()


async def test_the_service_says_whose_tokens_it_takes(
    broker: Broker, worker: ScriptedWorker, provider: Provider
) -> None:
    async with trusting_edge(broker, provider, client_id="cli") as edge, httpx2.AsyncClient(trust_env=False) as client:
        path = "/.well-known/oauth-protected-resource"
        document = (await client.get(f"{edge.url}{path}")).json()
        assert document == {
            "resource": edge.url,
            "authorization_servers": [provider.issuer],
            "bearer_methods_supported": ["header"],
            "scopes_supported": ["openid", "offline_access"],
            "inferflux_audience": AUDIENCE,
            "inferflux_client_id": "cli",
        }
        strange = await client.get(f"{edge.url}{path}", headers={"host": 'a"b'})
        assert strange.status_code == 400
    async with trusting_edge(broker, provider, resource="https://llm.example/") as edge:
        assert (await edge.client.get(path)).json()["resource"] == "https://llm.example"


async def test_over_tls_the_address_says_so(
    broker: Broker, worker: ScriptedWorker, provider: Provider, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("server")
    config = replace(CONFIG, oidc=policy_of(provider), tls=TlsFiles(files.cert, files.key))
    verify = ssl.create_default_context(cafile=authority.ca)
    async with running_edge(broker, config) as edge, httpx2.AsyncClient(trust_env=False, verify=verify) as client:
        assert edge.url.startswith("https://")
        path = "/.well-known/oauth-protected-resource"
        assert (await client.get(f"{edge.url}{path}")).json()["resource"] == edge.url
        refused = await client.get(f"{edge.url}/v1/models")
        assert f'resource_metadata="{edge.url}{path}"' in refused.headers["www-authenticate"]
        answer = await client.get(f"{edge.url}/v1/models", headers={"authorization": f"Bearer {provider.token()}"})
        assert answer.status_code == 200
