"""A line as it was published, read as the HTTP call would have been."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from broker.batch_lease import BatchLease
from producer.config import UnknownParameters
from producer.edge.body import parse_json
from producer.edge.calls import OnDisconnect
from producer.edge.directives import Directives
from producer.edge.errors import invalid
from producer.edge.parameters import check_parameters
from producer.edge.plan import Plan
from producer.edge.starting import Asked
from producer.edge.submitter import body_hash
from producer.edge.translate import Limits, chat_plan, completion_plan
from schemas.batch import BatchJob, BatchLine
from schemas.requests import Endpoint, Grants, Identity, PriorityClass

_PLANS: dict[str, tuple[Endpoint, Callable[[dict[str, Any], Limits], Plan]]] = {
    "/v1/chat/completions": (Endpoint.CHAT, chat_plan),
    "/v1/completions": (Endpoint.COMPLETIONS, completion_plan),
}
# Lines are of the lowest class, whatever they say.
_PRIORITY = ("priority", "service_tier")
OWN_PREFIX = "batch:"


def endpoint_of(line: BatchLine) -> Endpoint:
    return _PLANS[line.url][0]


def read_call(lease: BatchLease, line: BatchLine, limits: Limits, unknown: UnknownParameters) -> Asked:
    """What the line asks for, in the lowest class. Raises ServingError (400)."""
    endpoint, to_plan = _PLANS[line.url]
    body = json.dumps(line.body).encode()
    checked = check_parameters(endpoint, parse_json(body), unknown)
    if line.model != lease.model:
        raise invalid("'model' must be the model that the line was published for.", "model")
    if checked.values.get("stream"):
        raise invalid("'stream' must not be true in a batch.", "stream")
    for name in _PRIORITY:
        if name in checked.values:
            raise invalid(f"'{name}' has no place in a batch: its lines are of the class 'batch'.", name)
    plan = replace(to_plan(checked.values, limits), priority=PriorityClass.BATCH)
    directives = Directives(
        timeout_s=limits.max_timeout_s,
        on_disconnect=OnDisconnect.CONTINUE,
        queue_updates=False,
        idempotency_key=lease.key,
        journaled=True,
    )
    return Asked(plan, directives, body_hash(endpoint, body), checked.ignored)


def identity_of(tenant: str, record: BatchJob | None) -> Identity:
    """Whose the call is: of whoever brought the job, else of the tenant that published the line."""
    owner = f"{OWN_PREFIX}{tenant}" if record is None else record.owner
    models = ("*",) if record is None else record.models
    return Identity(owner, tenant, ("generate",), Grants(models, PriorityClass.BATCH))
