"""When an issuer is asked for its keys, and what holds meanwhile."""

import asyncio
import math

import pytest

from producer.auth.oidc.discovery import Issuer
from producer.auth.oidc.fetching import IssuerUnavailable
from producer.auth.oidc.key_cache import KeyCache, Timing
from producer.auth.oidc.key_set import KeySet
from schemas.errors import ErrorCode, ServingError
from tests.support.oidc import Keys, Provider

TIMING = Timing(min_interval_s=10, renew_after_s=300, look_first_s=600, keep_s=3600, unknown_s=60)
FIRST, SECOND = (KeySet(Keys(generation).jwks(private=False)) for generation in (1, 2))


class Issued:
    """An issuer as the cache sees it: what it answers, how often it was asked, and a clock."""

    def __init__(self) -> None:
        self.answer: KeySet | None = FIRST
        self.num_asked = 0
        self.now = 1000.0
        self.gate = asyncio.Event()
        self.gate.set()
        self.cache = KeyCache("https://issuer.test", self.load, timing=TIMING, clock=lambda: self.now)

    async def load(self) -> KeySet:
        self.num_asked += 1
        await self.gate.wait()
        if self.answer is None:
            raise IssuerUnavailable("away")
        return self.answer

    async def outcome(self, kid: str) -> str:
        """`ok`, or the code of the refusal."""
        try:
            await self.cache.find(kid, "RS256")
        except ServingError as error:
            assert (error.retry_after_s is not None) == (error.code is ErrorCode.ISSUER_UNAVAILABLE)
            return str(error.code)
        return "ok"


async def test_all_who_wait_share_one_question() -> None:
    issued = Issued()
    issued.gate.clear()
    waiting = [asyncio.create_task(issued.outcome("RS256-1")) for _ in range(50)]
    leaving = asyncio.create_task(issued.outcome("RS256-1"))
    await asyncio.sleep(0)
    leaving.cancel()
    issued.gate.set()
    assert set(await asyncio.gather(*waiting)) == {"ok"}
    assert issued.num_asked == 1
    assert leaving.cancelled() or leaving.done()


async def test_unknown_keys_ask_once_in_an_interval() -> None:
    issued = Issued()
    for second in range(100):
        issued.now = 1000.0 + second
        for number in range(20):
            assert await issued.outcome(f"{second}-{number}") == "invalid_token"
    assert issued.num_asked == 10


async def test_the_same_unknown_key_asks_once_in_a_longer_while() -> None:
    issued = Issued()
    assert await issued.outcome("RS256-1") == "ok"
    for second in range(10, 70):
        issued.now = 1000.0 + second
        assert await issued.outcome("nope") == "invalid_token"
    assert issued.num_asked == 2
    issued.now += 1
    assert await issued.outcome("nope") == "invalid_token"
    assert issued.num_asked == 3


async def test_a_key_that_came_while_nobody_might_ask_is_found_after_the_interval() -> None:
    issued = Issued()
    assert await issued.outcome("RS256-1") == "ok"
    issued.answer = SECOND
    issued.now += 5
    assert await issued.outcome("RS256-2") == "invalid_token"
    issued.now += 5
    assert await issued.outcome("RS256-2") == "ok"
    assert await issued.outcome("RS256-1") == "invalid_token"


async def test_keys_are_renewed_beside_the_requests() -> None:
    issued = Issued()
    assert await issued.outcome("RS256-1") == "ok"
    issued.answer = SECOND
    issued.now += TIMING.renew_after_s + 1
    issued.gate.clear()
    assert await issued.outcome("RS256-1") == "ok"
    task = issued.cache.renew()
    issued.gate.set()
    assert task is not None
    await task
    assert (await issued.outcome("RS256-1"), issued.num_asked) == ("invalid_token", 2)


async def test_after_a_long_silence_the_issuer_is_asked_first() -> None:
    issued = Issued()
    assert await issued.outcome("RS256-1") == "ok"
    issued.answer = SECOND
    issued.now += TIMING.look_first_s + 1
    assert await issued.outcome("RS256-1") == "invalid_token"


async def test_the_last_keys_hold_while_the_issuer_is_away_and_not_for_ever() -> None:
    issued = Issued()
    assert await issued.outcome("RS256-1") == "ok"
    issued.answer = None
    issued.now += TIMING.keep_s - 1
    assert await issued.outcome("RS256-1") == "ok"
    assert await issued.outcome("RS256-2") == "issuer_unavailable"
    issued.now += 2
    assert await issued.outcome("RS256-1") == "issuer_unavailable"
    issued.answer = FIRST
    assert await issued.outcome("RS256-1") == "issuer_unavailable"  # asked a moment ago
    issued.now += TIMING.min_interval_s
    assert await issued.outcome("RS256-1") == "ok"


async def test_a_first_answer_that_fails_is_not_asked_for_at_once() -> None:
    issued = Issued()
    issued.answer = None
    for _ in range(5):
        assert await issued.outcome("RS256-1") == "issuer_unavailable"
    assert issued.num_asked == 1


async def test_what_is_known_as_unknown_is_bounded() -> None:
    issued = Issued()
    for number in range(3000):
        issued.now += TIMING.min_interval_s
        assert await issued.outcome(str(number)) == "invalid_token"
    assert len(issued.cache._unknown) <= 1024


async def test_closing_ends_a_question_and_nobody_waits_for_ever() -> None:
    issued = Issued()
    issued.gate.clear()
    waiting = asyncio.create_task(issued.outcome("RS256-1"))
    await asyncio.sleep(0)
    await issued.cache.close()
    assert await waiting == "issuer_unavailable"


@pytest.mark.nats
async def test_keys_of_a_real_provider(provider: Provider) -> None:
    cache = KeyCache(provider.issuer, Issuer(provider.issuer).load_keys, timing=Timing(min_interval_s=math.inf))
    for algorithm in ("RS256", "ES256", "EdDSA"):
        assert (await cache.find(f"{algorithm}-1", algorithm)).kid == f"{algorithm}-1"
