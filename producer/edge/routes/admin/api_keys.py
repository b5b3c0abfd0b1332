"""/v1/admin/api_keys"""

from starlette.requests import Request
from starlette.responses import Response

from producer.auth.secrets import NewKey, mint_key
from producer.config import Scope
from producer.edge.context import context_of, identity_of
from producer.edge.guard import services_of
from producer.edge.json_response import json_response
from producer.edge.key_types import (
    ApiKeyList,
    ApiKeyView,
    IssueKey,
    NewApiKey,
    RevokedApiKey,
    RotateKey,
    UpdateKey,
)
from producer.edge.operation import operation
from producer.edge.routes.admin.bodies import read_as
from producer.edge.routes.admin.refusals import BODY_REFUSALS, POLICY_REFUSALS
from producer.edge.services import Services
from producer.policy import key_changes, key_list
from producer.policy.change import Change
from schemas.errors import ErrorCode
from schemas.policy import PolicyDocument, StoredKey

_OF_ONE = (ErrorCode.API_KEY_NOT_FOUND, *BODY_REFUSALS, *POLICY_REFUSALS)
_NO_STORE = {"cache-control": "no-store"}


@operation(summary="All API keys, without their secrets", scope=Scope.ADMIN, returns=ApiKeyList)
async def list_api_keys(request: Request) -> Response:
    services = services_of(request)
    views = key_list.views(services.policy.current, services.policy.config.keys, services.keys)
    return json_response({"object": "list", "data": views})


@operation(
    summary="Issue an API key; it is shown this once",
    scope=Scope.ADMIN,
    body=IssueKey,
    returns=NewApiKey,
    errors=(*BODY_REFUSALS, *POLICY_REFUSALS),
)
async def issue_api_key(request: Request) -> Response:
    services, body = services_of(request), await read_as(request, IssueKey)
    key_list.require_free_in_file(body.name, services.policy.config.keys, services.keys)
    new = mint_key()
    document = await _change(request, "api_key.issue", key_changes.issue(_stored(services, body, new)), new.id)
    return _shown_once(document, new)


@operation(
    summary="Give an API key a new secret; the one before opens the same for a while",
    scope=Scope.ADMIN,
    body=RotateKey,
    returns=NewApiKey,
    errors=_OF_ONE,
)
async def rotate_api_key(request: Request) -> Response:
    services, body = services_of(request), await read_as(request, RotateKey, is_optional=True)
    key = key_changes.find(services.policy_store.document, request.path_params["id"])
    new = mint_key(key.id)
    change = key_changes.rotate(key.id, services.keys.digest(new.text).hex(), body.grace_s)
    return _shown_once(await _change(request, "api_key.rotate", change, key.id), new)


@operation(
    summary="Change what an API key opens", scope=Scope.ADMIN, body=UpdateKey, returns=ApiKeyView, errors=_OF_ONE
)
async def update_api_key(request: Request) -> Response:
    services, body = services_of(request), await read_as(request, UpdateKey)
    key = key_changes.find(services.policy_store.document, request.path_params["id"])
    changes = body.changes()
    if "name" in changes:
        key_list.require_free_in_file(changes["name"], services.policy.config.keys, services.keys)
    document = await _change(request, "api_key.update", key_changes.update(key.id, changes), key.id)
    return json_response(key_list.view_of_stored(document.api_keys[key.id]))


@operation(
    summary="Revoke an API key everywhere and for good, also one of the configuration file (by its name)",
    scope=Scope.ADMIN,
    returns=RevokedApiKey,
    errors=_OF_ONE,
)
async def revoke_api_key(request: Request) -> Response:
    services, wanted = services_of(request), request.path_params["id"]
    spec = key_list.find_in_file(wanted, services.policy.current.file_keys, services.keys)
    if spec is not None and wanted not in services.policy_store.document.api_keys:
        target = services.keys.owner_of(spec)
        change = key_changes.revoke_digest(services.keys.digest(spec.key).hex(), target)
    else:
        target = key_changes.find(services.policy_store.document, wanted).id
        change = key_changes.revoke(target)
    await _change(request, "api_key.revoke", change, target)
    return json_response({"id": target, "object": "api_key", "revoked": True})


async def _change(request: Request, action: str, change: Change, target: str) -> PolicyDocument:
    services = services_of(request)
    return await services.policy_store.change(
        identity_of(request),
        action,
        services.lockout.guarded(change),
        target=target,
        request_id=context_of(request).request_id,
    )


def _stored(services: Services, body: IssueKey, new: NewKey) -> StoredKey:
    return StoredKey(
        id=new.id,
        digest=services.keys.digest(new.text).hex(),
        name=body.name,
        scopes=tuple(str(scope) for scope in body.scopes),
        tenant=body.tenant,
        models=tuple(body.models),
        ceiling=body.ceiling,
        limits=body.limits,
        created_at=key_list.now(),
        expires_at=body.expiry,
    )


def _shown_once(document: PolicyDocument, new: NewKey) -> Response:
    return json_response(key_list.view_of_stored(document.api_keys[new.id]) | {"key": new.text}, _NO_STORE)
