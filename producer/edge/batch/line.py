"""One line: the call that it asks for is begun, or joined where another edge began it, and waited for."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from broker.batch_lease import BatchLease
from broker.errors import BrokerError
from producer.auth.oidc.claims import OWNER_PREFIX
from producer.edge.answering import whole_body
from producer.edge.audited import note_refused_call
from producer.edge.batch.errors import Leaving, check_not_cancelled, check_open
from producer.edge.batch.jobs import Jobs
from producer.edge.batch.reading import OWN_PREFIX, endpoint_of, identity_of, read_call
from producer.edge.batch.turns import Turn
from producer.edge.calls import Call
from producer.edge.changes import Changes
from producer.edge.context import Context
from producer.edge.errors import error_object
from producer.edge.lifecycle import KEY_ENDED
from producer.edge.services import Services
from producer.edge.starting import Asked, start
from producer.edge.stream import WholeAnswer
from producer.metrics import UNKNOWN_MODEL
from schemas.batch import BatchJob, BatchLine
from schemas.errors import ErrorCode, ServingError
from schemas.tracing import SpanKind

# How long to trust that the next record wakes us, and a job goes without a look.
_LOOK_S = 1.0
_NO_TOKEN = 2**62


class Answer(NamedTuple):
    """Of a line, as HTTP would have given it. `call` is to be let go once the answer is stored."""

    status: int
    body: dict[str, Any]
    request_id: str
    call: Call | None = None


class Line:
    """A line on its way. Its steps in order: `check`, `read`, `answer`; each raises ServingError when it ends there."""

    def __init__(
        self, services: Services, jobs: Jobs, lease: BatchLease, line: BatchLine, is_leaving: Callable[[], bool]
    ) -> None:
        self._services = services
        self._jobs = jobs
        self._is_leaving = is_leaving
        self._record: BatchJob | None = None
        self.lease = lease
        self.line = line
        self.context = Context(request_id="")

    @property
    def model(self) -> str:
        """The id of its model as far as it is known."""
        card = self._services.models.find(self.lease.model)
        return UNKNOWN_MODEL if card is None else card.id

    async def check(self) -> None:
        """Find out whose it is, and whether it is still wanted. Raises BrokerError too."""
        self._record = await self._jobs.get(self.lease.tenant, self.line.job)
        self.context.become(identity_of(self.lease.tenant, self._record))
        check_open(self._record)
        self._check_owner()

    def read(self) -> Asked:
        return read_call(self.lease, self.line, self._services.limits, self._services.config.unknown_parameters)

    async def answer(self, asked: Asked, turn: Turn) -> Answer:
        """Begin the call and wait for its end. Raises Leaving when the edge does; BrokerError."""
        call = await self._begin(asked)
        try:
            body = await self._whole(call, turn)
        except ServingError as error:
            if error.retryable:
                self._detach(call)
                raise
            return self.refused(error, call)
        except BaseException:
            self._detach(call)
            raise
        return Answer(200, orjson.loads(body), call.request_id, call)

    def refused(self, error: ServingError, call: Call | None = None) -> Answer:
        return Answer(error.status, error_object(error), self.context.request_id, call)

    def note_refusal(self, error: ServingError) -> None:
        """As of any call that was not begun."""
        self._services.metrics.refused(endpoint_of(self.line), self.model, error.code)
        note_refused_call(self._services.audit, self.context, "", self.model, error)

    def let_go(self, answer: Answer, *, is_stored: bool) -> None:
        """The call is not needed here any more, and nowhere once its answer is stored."""
        if answer.call is not None:
            answer.call.is_stored = is_stored
            self._detach(answer.call)

    def _detach(self, call: Call) -> None:
        self.context.span.end()
        self._services.lifecycle.detach(call, left=False)

    async def _begin(self, asked: Asked) -> Call:
        services = self._services
        span = self.context.span = services.tracer.start(
            "process inferflux.batch",
            SpanKind.CONSUMER,
            parent=None,
            attributes={"messaging.system": "nats", "messaging.operation.type": "process"},
        )
        try:
            with services.arrivals.enter() as arrival:
                arrival.take_bytes(self.lease.size_bytes)
                arrival.take_places(len(asked.plan.prompts))
                return await start(self.context, services, asked)
        except ServingError as error:
            self.note_refusal(error)
            span.end(error=str(error.code))
            raise

    async def _whole(self, call: Call, turn: Turn) -> bytes:
        services, whole, changes = self._services, WholeAnswer(call, self._services.filters), Changes(call)
        looked_at = time.monotonic()
        try:
            while not (call.is_settled or whole.is_cut()):
                if self._is_leaving():
                    raise Leaving
                if time.monotonic() - looked_at >= _LOOK_S:
                    looked_at = time.monotonic()
                    await self._check_wanted(call)
                await changes.wait(0 if call.first_token_at is None else _NO_TOKEN, _LOOK_S)
                services.lifecycle.note_first_token(call)
                if call.has_started:
                    turn.started()
        finally:
            changes.close()
        return whole_body(services, call, whole)

    async def _check_wanted(self, call: Call) -> None:
        """End the call of a job that was cancelled, or whose key holds no longer. Raises ServingError."""
        try:
            self._record = await self._jobs.get(self.lease.tenant, self.line.job)
        except BrokerError:
            return  # what cannot be read now is read in a second
        try:
            check_not_cancelled(self._record)
        except ServingError as error:
            self._services.lifecycle.cancel(call, str(error.code))
            raise
        try:
            self._check_owner()
        except ServingError:
            self._services.lifecycle.revoke(call)
            raise

    def _check_owner(self) -> None:
        """Raises ServingError (401) when it was a key's, and nobody of that name has one any more."""
        owner = self.context.who.owner
        if not owner.startswith((OWN_PREFIX, OWNER_PREFIX)) and not self._services.keys.has_key(owner):
            raise ServingError(ErrorCode.INVALID_API_KEY, KEY_ENDED)
