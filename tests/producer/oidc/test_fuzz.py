"""Whatever is presented as a token, the answer is 401, and nothing of it is in a log."""

import logging
import random
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.producer.conftest import Edge
from tests.producer.test_parameters import ANY_JSON
from tests.support.counts import full_or
from tests.support.oidc import Provider

pytestmark = [pytest.mark.nats]

FUZZ = settings(
    max_examples=full_or(2000, reduced=100),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# What may stand in a header at all.
LETTERS = [chr(code) for code in range(33, 256) if code != 127]
PART = st.text(st.sampled_from(LETTERS), max_size=40) | st.from_regex(r"\A[A-Za-z0-9_-]{0,60}\Z")
CLAIMS = ("iss", "aud", "exp", "nbf", "sub", "scope", "tenant", "models", "cnf")
FIELDS = ("alg", "kid", "typ", "crit", "b64", "jwk", "x5c")
CODES = {"invalid_token", "expired_token", "invalid_api_key"}


async def is_refused(edge: Edge, caplog: pytest.LogCaptureFixture, token: str) -> bool:
    """Whether the answer is a 401; False for one that the token's own claims allow. Never another failure."""
    caplog.clear()
    with caplog.at_level(logging.DEBUG), capture_logs() as logged:
        answer = await edge.client.get("/v1/models", headers=[(b"authorization", b"Bearer " + token.encode("latin-1"))])
    for place in (caplog.text, str(logged), answer.text, str(answer.headers)):
        assert len(token) <= 20 or token not in place
        # Nor a longer piece of it: every part of a token may be used to guess the rest.
        assert not any(part in place for part in token.split(".") if len(part) > 20)
    assert answer.status_code in (200, 401, 403), answer.text
    if answer.status_code == 401:
        assert answer.json()["error"]["code"] in CODES
    return answer.status_code == 401


@FUZZ
@given(parts=st.lists(PART, min_size=1, max_size=5), begins_well=st.booleans())
async def test_garbage(edge: Edge, caplog: pytest.LogCaptureFixture, parts: list[str], begins_well: bool) -> None:
    token = ("eyJ" if begins_well else "") + ".".join(parts)
    assume(token.strip())
    assert await is_refused(edge, caplog, token.strip())


@FUZZ
@given(seed=st.integers(), number=st.integers(1, 5))
async def test_a_good_token_with_some_characters_changed(
    edge: Edge, caplog: pytest.LogCaptureFixture, provider: Provider, seed: int, number: int
) -> None:
    good = provider.sign()
    draw = random.Random(seed)
    characters = list(good)
    for _ in range(number):
        place = draw.randrange(len(characters))
        replacement = draw.choice(["", ".", "=", "+", "A", "-", "_", draw.choice(LETTERS)])
        characters[place : place + draw.randrange(2)] = [replacement]
    token = "".join(characters)
    assume(token != good)
    assert await is_refused(edge, caplog, token)


@FUZZ
@given(
    claims=st.dictionaries(st.sampled_from(CLAIMS), ANY_JSON, max_size=3),
    header=st.dictionaries(st.sampled_from(FIELDS[1:]), ANY_JSON, max_size=2),
)
async def test_signed_nonsense(
    edge: Edge, caplog: pytest.LogCaptureFixture, provider: Provider, claims: dict[str, Any], header: dict[str, Any]
) -> None:
    token = provider.sign(**claims, header=header)
    is_good = await is_refused(edge, caplog, token) is False
    if is_good:
        assert {"iss", "aud", "exp", "sub", "cnf"}.isdisjoint(name for name in claims if claims[name] is not None)


def test_tokens_have_the_form_that_the_fuzzing_starts_from(provider: Provider) -> None:
    assert re.fullmatch(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", provider.sign())
