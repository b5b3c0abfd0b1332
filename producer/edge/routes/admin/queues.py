"""GET /v1/admin/queues"""

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from broker.dead_letters import count_dead_letters
from broker.errors import BrokerError
from producer.config import Scope
from producer.edge.fleet_types import QueueList
from producer.edge.guard import services_of
from producer.edge.json_response import json_response
from producer.edge.operation import operation
from producer.edge.retry_after import Line
from producer.edge.routes.query_values import QueryValues
from producer.edge.services import Services
from schemas.control import ModelCard
from schemas.errors import ErrorCode, ServingError
from schemas.requests import PriorityClass


@operation(
    summary="What waits and runs of each model and class: model",
    scope=Scope.ADMIN,
    returns=QueueList,
    errors=(
        ErrorCode.UNKNOWN_PARAMETER,
        ErrorCode.INVALID_PARAMETER,
        ErrorCode.MODEL_NOT_FOUND,
        ErrorCode.BROKER_UNAVAILABLE,
    ),
)
async def list_queues(request: Request) -> Response:
    services, wanted = services_of(request), QueryValues(request, ("model",)).text("model")
    cards = [services.models.require(wanted)] if wanted is not None else list(services.models.cards.values())
    try:
        letters = await count_dead_letters(services.connection)
    except BrokerError as error:
        raise ServingError(
            ErrorCode.BROKER_UNAVAILABLE, "The queues cannot be read just now.", retryable=True, retry_after_s=2
        ) from error
    data = await asyncio.gather(*(_view(services, card, letters.get(card.id, 0)) for card in cards))
    return json_response({"object": "list", "data": sorted(data, key=lambda each: str(each["model"]))})


async def _view(services: Services, card: ModelCard, num_letters: int) -> dict[str, Any]:
    return {
        "object": "queue",
        "model": card.id,
        "workers": len(services.models.serving(card.id)),
        "queue_max": card.queue_max,
        "queue_max_tokens": card.queue_max_tokens,
        "dead_letters": num_letters,
        "classes": await asyncio.gather(*(_class(services, card.id, priority) for priority in PriorityClass)),
    }


async def _class(services: Services, model: str, priority: PriorityClass) -> dict[str, Any]:
    look = await services.queue.look(model, priority)
    return {
        "priority": str(priority),
        "waiting": look.depth.waiting,
        "in_hand": look.depth.running,
        "oldest_age_s": round(await services.queue.oldest_age_s(model, priority), 3),
        "waiting_prompt_tokens": services.waiting.tokens(Line(model, priority)),
        "asking": look.num_asking,
    }
