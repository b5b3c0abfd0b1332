"""/v1/admin/workers"""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from producer.config import Scope
from producer.edge.fleet import Member
from producer.edge.fleet_types import Drain, DrainedWorker, WorkerDetail, WorkerList
from producer.edge.guard import services_of
from producer.edge.json_response import json_response
from producer.edge.operation import operation
from producer.edge.routes.admin.bodies import read_as
from producer.edge.routes.admin.recorded import record
from schemas.control import WorkerAdvert
from schemas.errors import ErrorCode
from schemas.worker_orders import Cordon, DrainOrder, WorkerStatus

_ERRORS = (
    ErrorCode.WORKER_NOT_FOUND,
    ErrorCode.WORKER_UNAVAILABLE,
    ErrorCode.AUDIT_UNAVAILABLE,
)


@operation(summary="The workers, and how they are", scope=Scope.ADMIN, returns=WorkerList)
async def list_workers(request: Request) -> Response:
    members = await services_of(request).fleet.members()
    return json_response({"object": "list", "data": [_view(member) for member in members]})


@operation(
    summary="One worker, with the requests it has in hand",
    scope=Scope.ADMIN,
    returns=WorkerDetail,
    errors=(ErrorCode.WORKER_NOT_FOUND,),
)
async def show_worker(request: Request) -> Response:
    return json_response(_detail(await services_of(request).fleet.member(request.path_params["id"])))


@operation(
    summary="Let a worker end, after what it runs or at once",
    scope=Scope.ADMIN,
    body=Drain,
    returns=DrainedWorker,
    errors=(ErrorCode.INVALID_PARAMETER, ErrorCode.UNKNOWN_PARAMETER, *_ERRORS),
)
async def drain_worker(request: Request) -> Response:
    fleet, worker_id = services_of(request).fleet, request.path_params["id"]
    body = await read_as(request, Drain, is_optional=True)
    fleet.advert(worker_id)
    await record(request, "worker.drain", worker_id, mode=body.mode)
    status = await fleet.order(worker_id, DrainOrder(mode=body.mode), WorkerStatus)
    await fleet.until(worker_id, lambda advert: advert is None or advert.draining)
    return json_response(
        {
            "object": "worker.drain",
            "id": worker_id,
            "mode": body.mode,
            "num_requests": len(status.requests),
            "starts_again": status.supervised,
        }
    )


@operation(
    summary="Let a worker take nothing new, and go on with what it has",
    scope=Scope.ADMIN,
    returns=WorkerDetail,
    errors=_ERRORS,
)
async def cordon_worker(request: Request) -> Response:
    return await _cordon(request, is_on=True)


@operation(
    summary="Let a cordoned worker take requests again",
    scope=Scope.ADMIN,
    returns=WorkerDetail,
    errors=_ERRORS,
)
async def uncordon_worker(request: Request) -> Response:
    return await _cordon(request, is_on=False)


async def _cordon(request: Request, *, is_on: bool) -> Response:
    fleet, worker_id = services_of(request).fleet, request.path_params["id"]
    fleet.advert(worker_id)
    await record(request, "worker.cordon" if is_on else "worker.uncordon", worker_id)
    await fleet.order(worker_id, Cordon(on=is_on), WorkerStatus)
    await fleet.until(worker_id, lambda advert: advert is None or advert.cordoned is is_on)
    return json_response(_detail(await fleet.member(worker_id)))


def _detail(member: Member) -> dict[str, Any]:
    return _view(member) | {"requests": None if member.status is None else list(member.status.requests)}


def _view(member: Member) -> dict[str, Any]:
    """The worker's own word comes before the registry's, which may be two seconds old."""
    advert, status = member.advert, member.status
    said: WorkerStatus | WorkerAdvert = status if status is not None else advert
    models = {model.id: model for model in status.models} if status is not None else {}
    return {
        "object": "worker",
        "id": advert.id,
        "host": advert.host,
        "pid": advert.pid,
        "version": advert.version,
        "state": _state(advert, said),
        "cordoned": said.cordoned,
        "draining": said.draining,
        "answers": status is not None,
        "last_seen_s": round(member.seen_s_ago, 3),
        "uptime_s": None if status is None else status.uptime_s,
        "supervised": None if status is None else status.supervised,
        "num_requests": None if status is None else len(status.requests),
        "models": [
            {
                "id": served.id,
                "backend": served.backend,
                "slots": served.slots,
                **{
                    name: getattr(models[served.id], name) if served.id in models else None
                    for name in ("busy", "waiting", "free")
                },
            }
            for served in advert.models
        ],
    }


def _state(advert: WorkerAdvert, said: WorkerStatus | WorkerAdvert) -> str:
    if said.draining:
        return "draining"
    if said.cordoned:
        return "cordoned"
    return "serving" if advert.models or not advert.loading else "loading"
