"""The last step of a start: the edge itself says that the default model can be used."""

import httpx2
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_delay, wait_fixed

from ops.errors import CannotStart

LIMIT_S = 60.0
POLL_EVERY_S = 0.05


class _NotReady(Exception):
    """The edge answers, and says what is missing."""


async def wait_until_ready(edge_url: str, limit_s: float = LIMIT_S) -> None:
    """Ask `/readyz` until it says yes. Raises CannotStart with the edge's reason when it does not in time."""
    attempts = AsyncRetrying(
        retry=retry_if_exception_type((_NotReady, httpx2.TransportError)),
        wait=wait_fixed(POLL_EVERY_S),
        stop=stop_after_delay(limit_s),
    )
    async with httpx2.AsyncClient(trust_env=False, timeout=5) as client:
        try:
            async for attempt in attempts:
                with attempt:
                    await _ask(client, edge_url)
        except RetryError as error:
            raise CannotStart(f"the edge is not ready: {error.last_attempt.exception()}") from None


async def _ask(client: httpx2.AsyncClient, edge_url: str) -> None:
    response = await client.get(f"{edge_url}/readyz")
    if response.status_code != 200:
        raise _NotReady(_message(response))


def _message(response: httpx2.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}"
