"""/v1/admin/policy"""

from starlette.requests import Request
from starlette.responses import Response

from producer.config import Scope
from producer.edge.context import context_of, identity_of
from producer.edge.guard import services_of
from producer.edge.json_response import json_response
from producer.edge.operation import operation
from producer.edge.policy_types import (
    ExportPolicy,
    ImportPolicy,
    PolicyView,
    Reset,
    Rollback,
    RotatePassphrase,
    VersionList,
)
from producer.edge.routes.admin.bodies import read_as
from producer.edge.routes.admin.refusals import BODY_REFUSALS, POLICY_REFUSALS
from producer.policy.errors import PolicyError
from producer.policy.secret import Secret
from producer.policy.view import describe, describe_versions
from schemas.errors import ErrorCode, ServingError

_SEALED = "application/octet-stream"
_ERRORS = (*BODY_REFUSALS, *POLICY_REFUSALS)


@operation(summary="What is allowed, and where each rule comes from", scope=Scope.ADMIN, returns=PolicyView)
async def show_policy(request: Request) -> Response:
    return _shown(request)


@operation(
    summary="Versions of the stored policy, oldest first",
    scope=Scope.ADMIN,
    returns=VersionList,
    errors=(ErrorCode.BROKER_UNAVAILABLE,),
)
async def list_policy_versions(request: Request) -> Response:
    store = services_of(request).policy_store
    return json_response({"object": "list", "data": describe_versions(await store.versions(), store.version)})


@operation(
    summary="Make an earlier version the next one; what was revoked since stays so",
    scope=Scope.ADMIN,
    body=Rollback,
    returns=PolicyView,
    errors=(ErrorCode.VERSION_NOT_FOUND, *_ERRORS),
)
async def roll_back_policy(request: Request) -> Response:
    services, body = services_of(request), await read_as(request, Rollback)
    await services.policy_store.rollback(
        identity_of(request), body.version, services.lockout.guarded, request_id=context_of(request).request_id
    )
    return _shown(request)


@operation(
    summary="Let the configuration file decide on a section again",
    scope=Scope.ADMIN,
    body=Reset,
    returns=PolicyView,
    errors=_ERRORS,
)
async def reset_policy(request: Request) -> Response:
    services, body = services_of(request), await read_as(request, Reset)
    await services.policy_store.reset(
        identity_of(request), body.section, services.lockout.guarded, request_id=context_of(request).request_id
    )
    return _shown(request)


@operation(
    summary="The stored policy as an encrypted file",
    scope=Scope.ADMIN,
    body=ExportPolicy,
    returns=_SEALED,
    errors=(ErrorCode.VERSION_NOT_FOUND, *BODY_REFUSALS),
)
async def export_policy(request: Request) -> Response:
    body = await read_as(request, ExportPolicy, is_optional=True)
    secret = None if body.passphrase is None else Secret.of_passphrase(body.passphrase.get_secret_value())
    return Response(await services_of(request).policy_store.exported(secret), media_type=_SEALED)


@operation(
    summary="Make an exported policy the next version; what was revoked here stays so",
    scope=Scope.ADMIN,
    body=ImportPolicy,
    returns=PolicyView,
    errors=_ERRORS,
)
async def import_policy(request: Request) -> Response:
    services, body = services_of(request), await read_as(request, ImportPolicy)
    secret = None if body.passphrase is None else Secret.of_passphrase(body.passphrase.get_secret_value())
    try:
        await services.policy_store.import_(
            identity_of(request),
            body.document,
            secret,
            services.lockout.guarded,
            request_id=context_of(request).request_id,
        )
    except PolicyError as error:
        raise ServingError(
            ErrorCode.INVALID_PARAMETER, f"The document is not imported: {error}.", param="document"
        ) from None
    return _shown(request)


@operation(
    summary="Encrypt with another passphrase from now on; earlier versions are dropped",
    scope=Scope.ADMIN,
    body=RotatePassphrase,
    returns=PolicyView,
    errors=_ERRORS,
)
async def rotate_policy_passphrase(request: Request) -> Response:
    services, body = services_of(request), await read_as(request, RotatePassphrase)
    await services.policy_store.rotate_passphrase(
        identity_of(request), body.passphrase.get_secret_value(), request_id=context_of(request).request_id
    )
    return _shown(request)


def _shown(request: Request) -> Response:
    services = services_of(request)
    return json_response(describe(services.policy.current, services.policy_store))
