"""Requests for tests that need one and do not care which."""

import dataclasses
import time
from typing import Any

from schemas.requests import Endpoint, GenerateRequest, Identity, SamplingParams, TextPrompt


def make_request(request_id: str = "r1", **changes: Any) -> GenerateRequest:
    """A small request for model `echo` of edge `e1`; `changes` are fields of GenerateRequest."""
    request = GenerateRequest(
        request_id=request_id,
        edge="e1",
        model="echo",
        endpoint=Endpoint.COMPLETIONS,
        created=1_700_000_000,
        deadline_ms=int(time.time() * 1000) + 600_000,
        identity=Identity(owner="k_test"),
        prompt=TextPrompt("hello"),
        sampling=SamplingParams(seed=1, max_tokens=16),
    )
    return dataclasses.replace(request, **changes)
