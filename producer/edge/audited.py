"""What an edge records of calls and refusals, by the level that is set."""

from starlette.requests import Request

from producer.audit.audit import Audit
from producer.audit.texts import prompt_text
from producer.config import AuditLevel
from producer.edge.calls import Call
from producer.edge.context import Context, context_of
from producer.edge.plan import Plan
from producer.metrics import OK, UNKNOWN_MODEL
from schemas.audit import AuditEvent, Outcome
from schemas.errors import ErrorCode, ServingError
from schemas.events import Finished
from schemas.requests import Identity

_GENERATE = "request.generate"
# Beside all that is answered with 401 or 403: what a rule forbids.
_DENIALS = frozenset({ErrorCode.RATE_LIMITED, ErrorCode.BUDGET_EXCEEDED, ErrorCode.CONTENT_FILTER})


def is_denial(error: ServingError) -> bool:
    return error.status in (401, 403) or error.code in _DENIALS


def note_denied_access(audit: Audit, request: Request, error: ServingError) -> None:
    """At the door: nobody we know, or somebody without the scope of the route."""
    if audit.level is AuditLevel.CHANGES:
        return
    identity = context_of(request).identity
    event = AuditEvent(
        action="auth.fail" if identity is None else "access.deny",
        # Or nobody could tell who it is: a provider of identities is away.
        outcome=Outcome.DENIED if is_denial(error) else Outcome.FAILED,
        actor=identity.owner if identity is not None else "",
        tenant=identity.tenant if identity is not None else "",
        target=f"{request.method} {_route_path(request)}",
        reason=str(error.code),
        request_id=context_of(request).request_id,
    )
    audit.denied(event, peer_of(request))


def note_refused_call(audit: Audit, context: Context, peer: str, model: str, error: ServingError) -> None:
    """A generation call that was not begun. `peer`: the address that it came from, empty for none."""
    level = audit.level
    if level is AuditLevel.CHANGES or (level is AuditLevel.DENIALS and not is_denial(error)):
        return
    identity = context.identity
    event = AuditEvent(
        action=_GENERATE,
        outcome=Outcome.DENIED if is_denial(error) else Outcome.FAILED,
        actor=identity.owner if identity is not None else "",
        tenant=identity.tenant if identity is not None else "",
        target="" if model == UNKNOWN_MODEL else model,
        reason=str(error.code),
        request_id=context.request_id,
    )
    if level is AuditLevel.REQUESTS:
        audit.note(event)
    else:
        audit.denied(event, peer)


def note_dropped_line(audit: Audit, tenant: str, reason: str) -> None:
    """A line of a batch that nobody can read, and whose result would belong nowhere."""
    if audit.level is not AuditLevel.CHANGES:
        audit.denied(AuditEvent("batch.drop", Outcome.FAILED, tenant=tenant, reason=reason), "")


def note_blocked_answer(audit: Audit, identity: Identity, model: str, rule: str) -> None:
    """A guardrail cut an answer off for one of its readers."""
    if audit.level is not AuditLevel.CHANGES:
        event = AuditEvent("answer.block", Outcome.DENIED, identity.owner, identity.tenant, model, reason=rule)
        audit.denied(event, "")


def remember_prompt(audit: Audit, call: Call, plan: Plan) -> None:
    """What the record of its end will say of the prompt: afterwards it is not at hand."""
    if audit.level is AuditLevel.REQUESTS:
        texts = [prompt_text(prompt) for prompt in plan.prompts]
        call.prompt_facts = audit.texts.details("prompt", texts, may_be_kept=call.is_journaled)


def note_ended_call(audit: Audit, call: Call, code: str, num_tokens: int, duration_s: float) -> None:
    if audit.level is not AuditLevel.REQUESTS:
        return
    ends = [part.view.fold.terminal for part in call.parts]
    usages = [end.usage for end in ends if isinstance(end, Finished)]
    answers = [part.view.fold.text() for part in call.parts]
    details = {
        "endpoint": str(call.header.endpoint),
        "priority": str(call.priority),
        "prompts": len(call.parts),
        "prompt_tokens": sum(usage.prompt_tokens for usage in usages),
        "completion_tokens": num_tokens,
        "duration_s": round(duration_s, 3),
        **call.prompt_facts,
        **audit.texts.details("answer", answers, may_be_kept=call.is_journaled),
    }
    audit.note(
        AuditEvent(
            action=_GENERATE,
            outcome=Outcome.ALLOWED if code == OK else Outcome.FAILED,
            actor=call.identity.owner,
            tenant=call.identity.tenant,
            target=call.model,
            reason="" if code == OK else code,
            request_id=call.request_id,
            details=details,
        )
    )


def peer_of(request: Request) -> str:
    return request.client.host if request.client is not None else ""


def _route_path(request: Request) -> str:
    """The route's own path, not what stands in for its parameters."""
    path: str = getattr(request.scope.get("route"), "path", "")
    return path
