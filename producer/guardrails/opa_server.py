"""OPA's data API: `POST <url> {"input": …}` is answered `{"result": …}`."""

import asyncio
import hashlib
import ssl
import time
from collections import OrderedDict
from typing import Any
from urllib.parse import urlsplit

import httpx2
import orjson

from producer.guardrails.decision import Decision, read_decision
from producer.guardrails.errors import InvalidGuardrails, NoDecision

# The same question within so many seconds is not asked again.
CACHE_TTL_S = 1.0
_CACHE_ENTRIES = 1024
# A longer question is not hashed: it hardly comes twice.
_MAX_CACHED_INPUT = 64 * 1024
_MAX_ANSWER = 2**20
_CONNECTIONS = 64


class OpaServer:
    """A pool of connections to one server, used from its loop. Certificates are checked; redirects are not followed."""

    def __init__(self, url: str, timeout_s: float) -> None:
        try:
            httpx2.URL(url)
            parts = urlsplit(url)
            _ = parts.port
        except (ValueError, httpx2.InvalidURL):
            raise InvalidGuardrails("opa_endpoint", "is not a URL") from None
        if not parts.hostname or parts.username is not None or parts.password is not None or parts.fragment:
            raise InvalidGuardrails("opa_endpoint", "needs a host, and may hold neither a password nor a fragment")
        self._url = url
        self._timeout_s = timeout_s
        self._cache = DecisionCache()
        self._num_asking = 0
        self._is_closing = False
        self._client = httpx2.AsyncClient(
            verify=ssl.create_default_context(),
            timeout=timeout_s,
            limits=httpx2.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
            follow_redirects=False,
            trust_env=False,
        )

    async def decide(self, request: dict[str, Any]) -> Decision:
        body = orjson.dumps({"input": request})
        key = hashlib.sha256(body).digest() if len(body) <= _MAX_CACHED_INPUT else None
        if key is not None and (known := self._cache.get(key)) is not None:
            return known
        self._num_asking += 1
        try:
            decision = read_decision(await self._ask(body))
        finally:
            self._num_asking -= 1
            await self._close_if_done()
        if key is not None:
            self._cache.put(key, decision)
        return decision

    async def close(self) -> None:
        """Closed once nobody waits for an answer any more."""
        self._is_closing = True
        await self._close_if_done()

    async def _close_if_done(self) -> None:
        if self._is_closing and self._num_asking == 0:
            await self._client.aclose()

    async def _ask(self, body: bytes) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):
                status, content = await self._post(body)
        except (TimeoutError, httpx2.TimeoutException):
            raise NoDecision(f"the policy server did not answer within {self._timeout_s:g} s") from None
        except (httpx2.HTTPError, OSError) as error:
            raise NoDecision(f"the policy server cannot be reached: {type(error).__name__}") from None
        if status != 200:
            raise NoDecision(f"the policy server answered {status}")
        try:
            answer = orjson.loads(content)
        except orjson.JSONDecodeError:
            raise NoDecision("the policy server's answer is not JSON") from None
        if not isinstance(answer, dict):
            raise NoDecision("the policy server's answer is not an object")
        return answer.get("result")

    async def _post(self, body: bytes) -> tuple[int, bytes]:
        content = b""
        headers = {"content-type": "application/json"}
        async with self._client.stream("POST", self._url, content=body, headers=headers) as answer:
            async for piece in answer.aiter_bytes():
                content += piece
                if len(content) > _MAX_ANSWER:
                    raise NoDecision("the policy server's answer is too long")
            return answer.status_code, content


class DecisionCache:
    """A few decisions, each for a moment. A key covers all that was asked, prompt included."""

    def __init__(self) -> None:
        self._entries: OrderedDict[bytes, tuple[float, Decision]] = OrderedDict()

    def get(self, key: bytes) -> Decision | None:
        entry = self._entries.get(key)
        return entry[1] if entry is not None and time.monotonic() < entry[0] else None

    def put(self, key: bytes, decision: Decision) -> None:
        self._entries[key] = (time.monotonic() + CACHE_TTL_S, decision)
        self._entries.move_to_end(key)
        if len(self._entries) > _CACHE_ENTRIES:
            self._entries.popitem(last=False)
