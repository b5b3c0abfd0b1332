"""Keeps an issuer's keys, and asks for them no more often than it must."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from producer.auth.oidc.fetching import IssuerUnavailable
from producer.auth.oidc.key_set import KeySet, PublicKey
from schemas.errors import ErrorCode, ServingError

_log = structlog.stdlib.get_logger("inferflux.edge.oidc")
_MAX_UNKNOWN = 1024


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. Between two questions lie at least `min_interval_s`, whatever tokens come.

    Keys older than `renew_after_s` are asked for again beside the requests, those older than `look_first_s` before the
    next token is judged. While the issuer does not answer, the last keys hold for `keep_s`. A key that the issuer did
    not know is not asked for again for `unknown_s`.
    """

    min_interval_s: float = 10.0
    renew_after_s: float = 300.0
    look_first_s: float = 600.0
    keep_s: float = 3600.0
    unknown_s: float = 60.0


TIMING = Timing()


class KeyCache:
    """The keys of one issuer, on the loop. `load` asks it; `on_answer` hears of every answer whether it was one."""

    def __init__(
        self,
        issuer: str,
        load: Callable[[], Awaitable[KeySet]],
        on_answer: Callable[[bool], None] = lambda _: None,
        timing: Timing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.issuer = issuer
        self._load = load
        self._on_answer = on_answer
        self._timing = timing or TIMING
        self._clock = clock
        self._keys: KeySet | None = None
        self._loaded_at = -math.inf
        self._tried_at = -math.inf
        self._is_failing = False
        self._task: asyncio.Task[None] | None = None
        self._unknown: dict[str, float] = {}

    async def find(self, kid: str, algorithm: str) -> PublicKey:
        """The key that signs so. Raises ServingError: 401 when there is none, 503 when nobody can tell."""
        if self._age > (self._timing.keep_s if self._is_failing else self._timing.look_first_s):
            await self._renewed()
        elif self._age > self._timing.renew_after_s:
            self.renew()
        key = self._held(kid, algorithm)
        was_asked = False
        if key is None and not self._is_known_as_unknown(kid):
            was_asked = await self._renewed()
            key = self._held(kid, algorithm)
        if key is not None:
            return key
        if self._is_failing or not self._has_keys:
            raise self._unavailable()
        if was_asked:
            self._note_unknown(kid)
        raise ServingError(ErrorCode.INVALID_TOKEN, "The token is signed with a key that its issuer does not publish.")

    def renew(self) -> asyncio.Task[None] | None:
        """Ask the issuer, unless that was done just now; the task that asks, if one does."""
        if self._task is None and self._clock() - self._tried_at >= self._timing.min_interval_s:
            self._tried_at = self._clock()
            self._task = asyncio.create_task(self._ask(), name="keys of the issuer")
        return self._task

    @property
    def is_asking(self) -> bool:
        return self._task is not None

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    @property
    def _age(self) -> float:
        return self._clock() - self._loaded_at

    @property
    def _has_keys(self) -> bool:
        return self._keys is not None and self._age <= self._timing.keep_s

    def _held(self, kid: str, algorithm: str) -> PublicKey | None:
        return self._keys.find(kid, algorithm) if self._keys is not None and self._has_keys else None

    async def _renewed(self) -> bool:
        """Wait for an answer, if it is time to ask. All share one question, and it goes on when one of them leaves."""
        task = self.renew()
        if task is None:
            return False
        await asyncio.wait({task})
        return True

    async def _ask(self) -> None:
        try:
            self._keys = await self._load()
        except IssuerUnavailable as error:
            if not self._is_failing:
                _log.warning("issuer unavailable", issuer=self.issuer, reason=str(error), has_keys=self._has_keys)
            self._is_failing = True
            self._on_answer(False)
        else:
            if self._is_failing or self._loaded_at == -math.inf:
                _log.info("issuer answers", issuer=self.issuer, keys=len(self._keys))
            self._is_failing = False
            self._loaded_at = self._clock()
            self._on_answer(True)
        finally:
            self._task = None

    def _is_known_as_unknown(self, kid: str) -> bool:
        return self._clock() < self._unknown.get(kid, -math.inf)

    def _note_unknown(self, kid: str) -> None:
        self._unknown.pop(kid, None)
        if len(self._unknown) >= _MAX_UNKNOWN:
            del self._unknown[next(iter(self._unknown))]
        self._unknown[kid] = self._clock() + self._timing.unknown_s

    def _unavailable(self) -> ServingError:
        return ServingError(
            ErrorCode.ISSUER_UNAVAILABLE,
            "The issuer of the token cannot be asked for its keys at the moment. API keys work.",
            retryable=True,
            retry_after_s=max(1.0, self._tried_at + self._timing.min_interval_s - self._clock()),
        )
