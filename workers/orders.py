"""What administrators ask of one worker: how it is, to take nothing new, to leave, to drop or fill its cache."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from pydantic import BaseModel

from schemas.errors import ErrorCode, ServingError
from schemas.requests import ChatPrompt, Prompt, TextPrompt
from schemas.worker_orders import (
    ClearCache,
    Cleared,
    ClearedModel,
    Cordon,
    Describe,
    DrainOrder,
    Order,
    WarmCache,
    Warmed,
    WorkerStatus,
)
from workers.intake import Intake


class Orders:
    """On the loop. Whether the worker takes new work, and whether it is to leave, is kept here.

    `intakes()` are all that have requests, for each model first the one that takes new ones.
    `leave` ends the worker with what runs handed back. `announce` returns once the registry has the news, or does not
    take them.
    """

    def __init__(
        self,
        intakes: Callable[[], Iterable[Intake]],
        *,
        is_supervised: bool,
        leave: Callable[[], None],
        announce: Callable[[], Awaitable[None]],
    ) -> None:
        self._intakes = intakes
        self._is_supervised = is_supervised
        self._leave = leave
        self._announce = announce
        self._started_at = time.monotonic()
        self.is_cordoned = False
        self.is_finishing = False

    @property
    def has_finished(self) -> bool:
        """Whether it was to finish what it had, and has."""
        return self.is_finishing and all(intake.is_idle for intake in self._intakes())

    async def obey(self, order: Order) -> BaseModel:
        """Raises ServingError with what is wrong with the order."""
        match order:
            case Describe():
                return self._status()
            case Cordon():
                self.is_cordoned = order.on
                self._hold()
                await self._announce()
                return self._status()
            case DrainOrder():
                return await self._drain(order)
            case ClearCache():
                return await self._clear(order)
            case WarmCache():
                return await self._warm(order)

    async def _drain(self, order: DrainOrder) -> WorkerStatus:
        self.is_finishing = True
        self._hold()
        status = self._status()
        if order.mode == "hand_back":
            self._leave()
        else:
            await self._announce()
        return status

    async def _clear(self, order: ClearCache) -> Cleared:
        intakes = self._in_service() if order.model is None else [self._serving(order.model)]
        freed = await asyncio.gather(*(intake.clear_cache() for intake in intakes))
        return Cleared(
            models=tuple(
                ClearedModel(id=intake.model_id, entries=each.entries, tokens=each.tokens)
                for intake, each in zip(intakes, freed, strict=True)
            )
        )

    async def _warm(self, order: WarmCache) -> Warmed:
        prompt: Prompt = (
            ChatPrompt(order.messages, order.continue_last) if order.text is None else TextPrompt(order.text)
        )
        usage = await self._serving(order.model).warm(prompt, order.tenant)
        return Warmed(prompt_tokens=usage.prompt_tokens, cached_tokens=usage.cached_tokens)

    def _serving(self, model_id: str) -> Intake:
        for intake in self._in_service():
            if intake.model_id == model_id:
                return intake
        raise ServingError(ErrorCode.MODEL_NOT_FOUND, "the worker does not serve this model", param="model")

    def hold(self, intake: Intake) -> None:
        """Let it take new work or not, as all others."""
        intake.hold(is_held=self.is_cordoned or self.is_finishing)

    def _hold(self) -> None:
        for intake in self._intakes():
            self.hold(intake)

    def _in_service(self) -> list[Intake]:
        by_model: dict[str, Intake] = {}
        for intake in self._intakes():
            by_model.setdefault(intake.model_id, intake)
        return list(by_model.values())

    def _status(self) -> WorkerStatus:
        return WorkerStatus(
            uptime_s=round(time.monotonic() - self._started_at, 3),
            cordoned=self.is_cordoned,
            draining=self.is_finishing,
            supervised=self._is_supervised,
            requests=tuple(request_id for intake in self._intakes() for request_id in intake.request_ids),
            models=tuple(intake.status() for intake in self._in_service()),
        )
