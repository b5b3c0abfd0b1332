"""/v1/admin/batches"""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from producer.config import Scope
from producer.edge.batch.batch_types import OwnedBatchList
from producer.edge.guard import services_of
from producer.edge.operation import operation
from producer.edge.routes.paging import NAMES, page
from producer.edge.routes.query_values import QueryValues
from schemas.batch import BatchJob
from schemas.errors import ErrorCode


@operation(
    summary="Batches of all callers: tenant, after, limit, order",
    scope=Scope.ADMIN,
    returns=OwnedBatchList,
    errors=(ErrorCode.INVALID_PARAMETER, ErrorCode.UNKNOWN_PARAMETER, ErrorCode.BROKER_UNAVAILABLE),
)
async def list_all_batches(request: Request) -> Response:
    values, batches = QueryValues(request, (*NAMES, "tenant")), services_of(request).doors.batches
    tenant = values.text("tenant")

    async def describe(job: BatchJob) -> dict[str, Any]:
        return {**await batches.describe(job), "tenant": job.tenant, "owner": job.owner}

    jobs = await batches.list_all(tenant)
    return await page(values, jobs, lambda job: job.job, describe, default=20, most=100)
