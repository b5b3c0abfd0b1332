"""Starting a call, whoever brings it: joined by its idempotency key, or admitted and submitted."""

from dataclasses import dataclass

from producer.edge.admission import Admission, admit
from producer.edge.audited import remember_prompt
from producer.edge.calls import Call, Superseded
from producer.edge.context import Context
from producer.edge.directives import Directives
from producer.edge.plan import Plan
from producer.edge.resubmission import has_to_begin, submit_what_is_not_begun
from producer.edge.services import Services
from producer.edge.submitter import Order
from schemas.errors import ServingError
from schemas.tracing import Span, SpanKind


@dataclass(frozen=True, slots=True)
class Asked:
    """A call as read, before admission."""

    plan: Plan
    directives: Directives
    body_hash: str
    ignored: tuple[str, ...]


async def start(context: Context, services: Services, asked: Asked) -> Call:
    """Join the call that the idempotency key names, or admit and submit a new one; the caller is its reader.

    Raises ServingError.
    """
    while True:
        try:
            return await _join(context, services, asked) or await _submit(context, services, asked)
        except Superseded:
            continue


async def _join(context: Context, services: Services, asked: Asked) -> Call | None:
    key = asked.directives.idempotency_key
    if key is None:
        return None
    found = await services.joining.join(context.who, key, asked.body_hash)
    if not isinstance(found, Call):
        context.request_id = found
        return None
    context.request_id = found.request_id
    try:
        if has_to_begin(found):
            # The edge that admitted it is dead, and what it changed in the plan is known nowhere.
            plan = await services.guardrails.check(context.who, found.model, asked.plan)
            await submit_what_is_not_begun(found, plan, services.queue, context.span.traceparent)
    except BaseException:
        services.lifecycle.detach(found, left=False)
        raise
    return found


async def _submit(context: Context, services: Services, asked: Asked) -> Call:
    admission = Admission(context.who, asked.plan)
    try:
        call = await _admit_and_submit(context, services, asked, admission)
    finally:
        if admission.charge is not None:
            context.limits = admission.charge.headers()
    remember_prompt(services.audit, call, asked.plan)
    return call


async def _admit_and_submit(context: Context, services: Services, asked: Asked, admission: Admission) -> Call:
    await _admit(services, admission, context.span)
    order = Order(
        request_id=context.request_id,
        timeout_s=_timeout_s(asked, services.config.request_timeout_s),
        on_disconnect=asked.directives.on_disconnect,
        body_hash=asked.body_hash,
        idempotency_key=asked.directives.idempotency_key,
        span=context.span,
        journaled=asked.directives.journaled,
    )
    return await services.submitter.submit(admission, order)


async def _admit(services: Services, admission: Admission, call: Span) -> None:
    span = services.tracer.start("admission", SpanKind.INTERNAL, parent=call.traceparent)
    try:
        await admit(admission, services.stages)
    except ServingError as error:
        # A refusal is what admission is for.
        span.set("inferflux.refusal", str(error.code))
        raise
    finally:
        span.end()


def _timeout_s(asked: Asked, default_s: float) -> float:
    given = [each for each in (asked.plan.timeout_s, asked.directives.timeout_s) if each is not None]
    return min(given, default=default_s)
