"""POST /v1/chat/completions"""

from starlette.requests import Request
from starlette.responses import Response

from producer.config import Scope
from producer.edge.generation import generate
from producer.edge.guard import services_of
from producer.edge.openai_types import ChatCompletion, ChatCompletionChunk, ChatCompletionRequest
from producer.edge.operation import operation
from producer.edge.routes.refusals import GENERATION_ERRORS
from producer.edge.translate import chat_plan
from schemas.errors import ErrorCode
from schemas.requests import Endpoint


@operation(
    summary="Answer a chat",
    scope=Scope.GENERATE,
    body=ChatCompletionRequest,
    returns=ChatCompletion,
    stream=ChatCompletionChunk,
    errors=(*GENERATION_ERRORS, ErrorCode.NO_CHAT_TEMPLATE),
)
async def create_chat_completion(request: Request) -> Response:
    return await generate(request, services_of(request), Endpoint.CHAT, chat_plan)
