"""POST /v1/completions"""

from starlette.requests import Request
from starlette.responses import Response

from producer.config import Scope
from producer.edge.generation import generate
from producer.edge.guard import services_of
from producer.edge.openai_types import Completion, CompletionChunk, CompletionRequest
from producer.edge.operation import operation
from producer.edge.routes.refusals import GENERATION_ERRORS
from producer.edge.translate import completion_plan
from schemas.requests import Endpoint


@operation(
    summary="Continue one or several prompts",
    scope=Scope.GENERATE,
    body=CompletionRequest,
    returns=Completion,
    stream=CompletionChunk,
    errors=GENERATION_ERRORS,
)
async def create_completion(request: Request) -> Response:
    return await generate(request, services_of(request), Endpoint.COMPLETIONS, completion_plan)
