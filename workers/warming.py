"""Prompts that are computed for later requests alone: into the engine and its cache, past queue and journals."""

import asyncio
import contextlib
import secrets

from schemas.errors import ErrorCode, ServingError
from schemas.events import Usage
from schemas.requests import PriorityClass, Prompt, SamplingParams
from workers.engine.engine import Engine
from workers.engine.messages import Completed, Emission, EngineRequest, Errored

# Each takes a place of the engine while it runs; what people wait for comes before it.
MAX_AT_ONCE = 8
_PREFIX = "warm-"


class Warming:
    """Those of one engine. On the loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: dict[str, asyncio.Future[Usage]] = {}

    @property
    def num_running(self) -> int:
        return len(self._waiting)

    async def warm(self, prompt: Prompt, tenant: str) -> Usage:
        """Compute a prompt and leave it in the cache; what of it was there already is in `cached_tokens`.

        Raises ServingError: what is wrong with the prompt, or that too many of these run. Cancelled, it stops.
        """
        if len(self._waiting) >= MAX_AT_ONCE:
            raise ServingError(
                ErrorCode.QUEUE_FULL, f"{MAX_AT_ONCE} prompts are being warmed already", retryable=True, retry_after_s=1
            )
        request = EngineRequest(
            request_id=f"{_PREFIX}{secrets.token_hex(8)}",
            prompt=prompt,
            sampling=SamplingParams(seed=0, max_tokens=1),
            priority=PriorityClass.BATCH,
            tenant=tenant,
            is_prefill_only=True,
        )
        done: asyncio.Future[Usage] = asyncio.get_running_loop().create_future()
        self._waiting[request.request_id] = done
        try:
            self._engine.submit(request)
            return await done
        except ValueError:  # the engine is closed
            raise _ended() from None
        finally:
            del self._waiting[request.request_id]
            self._engine.cancel(request.request_id)

    def take(self, emission: Emission) -> bool:
        """Whether an emission was for one of these, or one that was."""
        if not emission.request_id.startswith(_PREFIX):
            return False
        done = self._waiting.get(emission.request_id)
        if done is not None and not done.done():
            match emission:
                case Completed():
                    done.set_result(emission.usage)
                case Errored():
                    done.set_exception(emission.error)
        return True

    def close(self) -> None:
        """The engine ends: nothing more comes."""
        for done in self._waiting.values():
            with contextlib.suppress(asyncio.InvalidStateError):
                done.set_exception(_ended())


def _ended() -> ServingError:
    return ServingError(ErrorCode.NO_WORKER, "the worker ends", retryable=True)
