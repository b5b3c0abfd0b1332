"""The echo model without anything around it: what a first token takes there is not the stack's doing."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from schemas.requests import ChatMessage, ChatPrompt, SamplingParams
from workers.engine.config import EngineConfig
from workers.engine.engine import Engine
from workers.engine.messages import Completed, Emission, EngineRequest, Errored, Tokens
from workers.runners.base import RunnerSpec
from workers.runners.registry import create_runner

_LOAD_LIMIT_S = 60.0


class EngineAlone:
    """An engine in this process. `first_token` is called from its loop."""

    def __init__(self, source: str, sequences: int, context: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._ends: dict[str, asyncio.Future[None]] = {}
        self._first_at: dict[str, float] = {}
        spec = RunnerSpec(model_id="echo", source=source, sequences=sequences, context=context)
        self._engine = Engine(create_runner("echo"), spec, EngineConfig(), self._emitted)
        self._lock = threading.Lock()

    def start(self) -> None:
        """Load the model. Raises RunnerError."""
        self._engine.start()
        self._engine.wait_ready(_LOAD_LIMIT_S)

    def close(self) -> None:
        self._engine.close()

    async def first_token(self, number: int, text: str, max_tokens: int) -> float:
        """Run one chat to its end; seconds to its first token."""
        request_id = str(number)
        self._ends[request_id] = self._loop.create_future()
        sampling = SamplingParams(seed=0, temperature=0.0, max_tokens=max_tokens)
        sent_at = time.perf_counter()
        self._engine.submit(EngineRequest(request_id, ChatPrompt((ChatMessage("user", text),)), sampling))
        try:
            await self._ends[request_id]
        finally:
            del self._ends[request_id]
        with self._lock:
            return self._first_at.pop(request_id) - sent_at

    def _emitted(self, emissions: list[Emission]) -> None:
        """On the engine's thread."""
        now = time.perf_counter()
        for emission in emissions:
            if isinstance(emission, Tokens | Completed):
                with self._lock:
                    self._first_at.setdefault(emission.request_id, now)
            if isinstance(emission, Completed | Errored):
                self._loop.call_soon_threadsafe(self._end, emission)

    def _end(self, emission: Completed | Errored) -> None:
        end = self._ends.get(emission.request_id)
        if end is None or end.done():
            return
        if isinstance(emission, Errored):
            end.set_exception(emission.error)
        else:
            end.set_result(None)


@asynccontextmanager
async def engine_alone(source: str, sequences: int, context: int) -> AsyncIterator[EngineAlone]:
    engine = EngineAlone(source, sequences, context)
    engine.start()
    try:
        yield engine
    finally:
        engine.close()
