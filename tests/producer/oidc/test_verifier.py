"""The verifier follows the policy, from one issuer to another and to none."""

import asyncio
from pathlib import Path

import pytest

from producer.auth.oidc.token import check_signature, read_token
from producer.auth.oidc.verifier import OidcVerifier
from producer.policy.live import LivePolicy
from schemas.errors import ErrorCode, ServingError
from schemas.oidc_policy import OidcPolicy
from schemas.oidc_rules import ALGORITHMS, TOKEN_TYPES
from schemas.policy import PolicyDocument
from tests.producer.conftest import CONFIG
from tests.producer.oidc.conftest import answering, policy_of
from tests.support.oidc import AUDIENCE, Keys, Provider, claims, running_provider, sign


async def refusal(verifier: OidcVerifier, token: str) -> ErrorCode | None:
    try:
        await verifier.verify(token)
    except ServingError as error:
        return error.code
    return None


def test_a_signature_counts_for_the_algorithm_that_was_checked_alone() -> None:
    """Should two readers of one header ever disagree about it."""
    key = Keys().by_algorithm["RS256"]
    token = read_token(sign(key, claims("https://issuer.test")), ALGORITHMS, TOKEN_TYPES)
    check_signature(token, key)
    for other in ("RS512", "ES256", "EdDSA"):
        with pytest.raises(ServingError, match="cannot be checked"):
            check_signature(token._replace(algorithm=other), key)


@pytest.mark.nats
async def test_another_issuer_from_one_moment_to_the_next(provider: Provider, tmp_path: Path) -> None:
    verifier, live = OidcVerifier(), LivePolicy(CONFIG)
    live.on_change(verifier.learn)
    verifier.start()
    first = provider.token()
    assert not verifier.recognises(first)
    with running_provider(tmp_path, Keys()) as other:
        second = other.token()
        # The document as it comes out of the store.
        document = PolicyDocument.model_validate_json(PolicyDocument(oidc=policy_of(provider)).model_dump_json())
        live.replace(document, 1)
        assert verifier.recognises(first)
        assert (await refusal(verifier, first), await refusal(verifier, second)) == (None, ErrorCode.INVALID_TOKEN)
        live.replace(PolicyDocument(oidc=policy_of(other)), 2)
        assert (await refusal(verifier, first), await refusal(verifier, second)) == (ErrorCode.INVALID_TOKEN, None)
        # The same issuer with other rules is not asked again.
        before = other.num_requests()
        live.replace(PolicyDocument(oidc=policy_of(other, algorithms=["ES256"])), 3)
        assert await refusal(verifier, second) is ErrorCode.INVALID_TOKEN
        assert other.num_requests() == before
    live.replace(None, 4)
    assert not verifier.recognises(second)
    assert await refusal(verifier, second) is ErrorCode.INVALID_TOKEN
    await verifier.close()


async def test_who_waits_for_an_issuer_that_is_replaced_is_answered() -> None:
    asked = asyncio.Event()

    def silent(_: bytes) -> bytes:
        asked.set()
        return b""

    verifier, live = OidcVerifier(), LivePolicy(CONFIG)
    live.on_change(verifier.learn)
    async with answering(silent) as url:
        token = sign(Keys().by_algorithm["RS256"], claims(url))
        live.replace(PolicyDocument(oidc=OidcPolicy(issuer=url, audience=AUDIENCE)), 1)
        waiting = asyncio.create_task(refusal(verifier, token))
        await asked.wait()
        live.replace(None, 2)
        await verifier.close()
        assert await waiting is ErrorCode.ISSUER_UNAVAILABLE
