"""GET /metrics"""

from starlette.requests import Request
from starlette.responses import Response

from producer.config import Scope
from producer.edge.exposition import exposition
from producer.edge.guard import services_of
from producer.edge.operation import operation


@operation(summary="Metrics of this edge and its workers", scope=Scope.READ, returns="text/plain")
async def metrics(request: Request) -> Response:
    return await exposition(services_of(request), request.headers.get("accept", ""))
