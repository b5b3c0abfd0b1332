"""Peers are asked for what they expect; here a server in the test answers as they do."""

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from ops.bench.connection import Target
from ops.bench.quality.divergence import log_probs
from ops.bench.quality.gate import Reference
from ops.bench.quality.peers import NotTold, ask_llama_server, ask_vllm, peer_quality
from ops.client.client import Client
from tests.support.http_server import Serve, reply, serve

__all__ = ["serve"]

VOCAB_SIZE = 200
WINDOWS = [[3, 1, 4, 1, 5], [9, 2, 6]]


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    logits = np.random.default_rng(1).normal(0, 4, (sum(map(len, WINDOWS)), VOCAB_SIZE)).astype(np.float32)
    np.save(tmp_path / "table.npy", log_probs(logits))
    return Reference(WINDOWS, tmp_path / "table.npy")


def to(client: Client) -> Target:
    port = urlsplit(client.base_url).port
    assert port is not None
    return Target("127.0.0.1", port, "none")


def target(serve: Serve, tell: Callable[[dict[str, Any]], object]) -> Target:
    def answer(request: BaseHTTPRequestHandler) -> None:
        asked = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        reply(200, json.dumps(tell(asked)).encode())(request)

    return to(serve(answer))


def row_after(reference: Reference, before: list[int]) -> np.ndarray:
    """The reference's own, by what was read."""
    start = 0
    for window in WINDOWS:
        if window[: len(before)] == before:
            return reference.open()[start + len(before) - 1]
        start += len(window)
    raise AssertionError(before)


async def test_llama_server_is_asked_after_every_token(serve: Serve, reference: Reference) -> None:
    prompts: list[list[int]] = []

    def tell(asked: dict[str, Any]) -> object:
        prompts.append(asked["prompt"])
        row = row_after(reference, asked["prompt"])
        best = np.argsort(-row)[: asked["n_probs"]]
        top = [{"id": int(token), "logprob": float(row[token])} for token in best]
        return {"completion_probabilities": [{"top_logprobs": top}]}

    found = (await peer_quality(target(serve, tell), ask_llama_server, "8 sequences", reference)).worst
    assert sorted(prompts) == sorted(window[:size] for window in WINDOWS for size in range(1, len(window) + 1))
    assert (found.tokens, found.top1, found.is_bound) == (8, 1.0, True)
    assert found.mean_kl < 1e-6


async def test_vllm_tells_of_a_whole_prompt(serve: Serve, reference: Reference) -> None:
    def tell(asked: dict[str, Any]) -> object:
        places: list[object] = [None]
        for size in range(1, len(asked["prompt"])):
            row = row_after(reference, asked["prompt"][:size])
            # Beside the most likely ones also the token that came.
            ids = {*np.argsort(-row)[: asked["prompt_logprobs"]].tolist(), asked["prompt"][size]}
            # Half as likely as they should be.
            places.append({str(token): {"logprob": float(row[token]) - np.log(2)} for token in ids})
        return {"choices": [{"prompt_logprobs": places}]}

    found = (await peer_quality(target(serve, tell), ask_vllm, "prompt", reference)).worst
    assert (found.tokens, found.top1) == (6, 1.0)
    assert 0.4 < found.mean_kl <= np.log(2)


@pytest.mark.parametrize("answer", [{}, {"choices": [{"prompt_logprobs": None}]}, {"completion_probabilities": []}])
@pytest.mark.parametrize("ask", [ask_llama_server, ask_vllm])
async def test_a_peer_that_does_not_tell_says_so(serve: Serve, reference: Reference, answer: object, ask: Any) -> None:
    with pytest.raises(NotTold, match="it gave no probabilities"):
        await peer_quality(target(serve, lambda _: answer), ask, "prompt", reference)


async def test_a_refusal_is_told(serve: Serve, reference: Reference) -> None:
    with pytest.raises(NotTold, match="HTTP 400: no such field"):
        await peer_quality(to(serve(reply(400, b"no such field"))), ask_vllm, "prompt", reference)
