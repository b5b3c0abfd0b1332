"""GET /v1/models and /v1/models/{id}"""

from starlette.requests import Request
from starlette.responses import Response

from producer.auth.rbac import may_use_model, require_model
from producer.config import Scope
from producer.edge.context import identity_of
from producer.edge.guard import services_of
from producer.edge.json_response import json_response
from producer.edge.openai_types import ModelInfo, ModelList
from producer.edge.operation import operation
from schemas.errors import ErrorCode

_READERS = (Scope.READ, Scope.GENERATE)


@operation(summary="Models this key may use", scope=_READERS, returns=ModelList)
async def list_models(request: Request) -> Response:
    models, identity = services_of(request).models, identity_of(request)
    cards = sorted(models.cards.values(), key=lambda card: (not models.is_default(card), card.id))
    data = [models.describe(card) for card in cards if may_use_model(identity, card.id)]
    return json_response({"object": "list", "data": data})


@operation(
    summary="One model, by id or alias",
    scope=_READERS,
    returns=ModelInfo,
    errors=(ErrorCode.MODEL_NOT_FOUND, ErrorCode.MODEL_NOT_ALLOWED),
)
async def retrieve_model(request: Request) -> Response:
    models = services_of(request).models
    card = models.require(request.path_params["id"])
    require_model(identity_of(request), card.id)
    return json_response(models.describe(card))
