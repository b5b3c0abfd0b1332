"""What is known about one HTTP request besides its body: ids, times and, once authenticated, who asks."""

import time
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.types import Scope

from producer.edge.ids import mint_request_id
from schemas.requests import Identity
from schemas.tracing import NO_SPAN, Span

_KEY = "inferflux.context"


@dataclass(slots=True)
class Context:
    """`request_id` is ours and may be replaced by that of an existing call; times are monotonic.

    `key_digest` is what is kept of the API key that was presented, None when it was none. `limits` are
    headers that say how the caller stands with its limits.
    """

    request_id: str
    client_request_id: str | None = None
    cors_origin: str | None = None
    received_at: float = field(default_factory=time.monotonic)
    identity: Identity | None = None
    key_digest: bytes | None = field(default=None, repr=False)
    limits: dict[str, str] = field(default_factory=dict)
    span: Span = NO_SPAN

    @property
    def who(self) -> Identity:
        """Who asks. Only once that is known: in handlers whose operation needs a scope."""
        assert self.identity is not None, "the operation of this route needs no key"
        return self.identity

    def become(self, identity: Identity) -> None:
        """From now on it is known who asks, and the id is theirs."""
        self.identity = identity
        self.request_id = mint_request_id(identity.owner)


def put_context(scope: Scope, context: Context) -> None:
    scope[_KEY] = context


def context_of(request: Request) -> Context:
    context = request.scope[_KEY]
    assert isinstance(context, Context)
    return context


def identity_of(request: Request) -> Identity:
    """Who asks. Only in handlers whose operation needs a scope."""
    return context_of(request).who
