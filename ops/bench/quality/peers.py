"""Peers, asked over HTTP what they expect after each token of the text: their most likely tokens."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import httpx2
import numpy as np

from ops.bench.connection import Target
from ops.bench.quality.child import first_places
from ops.bench.quality.divergence import Tally
from ops.bench.quality.gate import Reference
from ops.bench.quality.results import ArmQuality

# The rest of a distribution counts as one token: of small models a few per cent are behind these.
NUM_KNOWN = 64
_LIMIT_S = 120.0
_AT_ONCE = 8


class NotTold(Exception):
    """The peer does not say what it expects; in one line why."""


class Known(NamedTuple):
    """What is known of the expectation after the token at `place`: natural logarithms of probabilities by token."""

    place: int
    probs: dict[int, float]


Ask = Callable[[httpx2.AsyncClient, Sequence[int]], AsyncIterator[Known]]


async def peer_quality(target: Target, ask: Ask, shape: str, reference: Reference) -> ArmQuality:
    """Over the whole text, some of its windows at once. Raises NotTold."""
    table, starts, tally = reference.open(), first_places(reference.windows), Tally()
    turns = asyncio.Semaphore(_AT_ONCE)
    headers = {"Authorization": f"Bearer {target.api_key}"}
    url = f"http://{target.host}:{target.port}"
    async with httpx2.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=_LIMIT_S) as client:

        async def read(start: int, window: Sequence[int]) -> None:
            async with turns:
                async for place, probs in ask(client, window):
                    ids = np.fromiter(probs, np.int64)
                    tally.add_known(table[start + place], ids, np.fromiter(probs.values(), np.float64))

        try:
            await _all([read(start, window) for start, window in zip(starts, reference.windows, strict=True)])
        except (httpx2.HTTPError, KeyError, IndexError, TypeError, ValueError) as error:
            raise NotTold(f"it gave no probabilities: {type(error).__name__}: {error}") from None
    return ArmQuality(
        f"asked over HTTP for the {NUM_KNOWN} most likely tokens, the rest taken as one", "", {shape: tally.result()}
    )


async def ask_llama_server(client: httpx2.AsyncClient, window: Sequence[int]) -> AsyncIterator[Known]:
    """Token by token: what is before it is still in the slot."""
    for place in range(len(window)):
        told = await _post(
            client,
            "/completion",
            {
                "prompt": list(window[: place + 1]),
                "n_predict": 1,
                "n_probs": NUM_KNOWN,
                "temperature": 0,
                "cache_prompt": True,
            },
        )
        found = told["completion_probabilities"][0]["top_logprobs"]
        yield Known(place, {each["id"]: each["logprob"] for each in found})


async def ask_vllm(client: httpx2.AsyncClient, window: Sequence[int]) -> AsyncIterator[Known]:
    """As a prompt, whose tokens it tells the probabilities of. After the last one nothing is told."""
    told = await _post(
        client,
        "/v1/completions",
        {
            "model": "default",
            "prompt": list(window),
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": NUM_KNOWN,
        },
    )
    for place, found in enumerate(told["choices"][0]["prompt_logprobs"][1:]):
        yield Known(place, {int(token): each["logprob"] for token, each in found.items()})


async def _post(client: httpx2.AsyncClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    response = await client.post(path, json=body)
    if response.status_code != 200:
        raise NotTold(f"HTTP {response.status_code}: {response.text[:200]}")
    told: dict[str, Any] = response.json()
    return told


async def _all(work: Sequence[Awaitable[None]]) -> None:
    """The first failure ends them all."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
