"""The operation record of a route: what it needs, takes and gives. Access control and API document come from it."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from producer.config import Scope
from schemas.errors import ErrorCode

Handle = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Operation:
    """`scopes`: any of them opens the route; none means no key is needed. `returns` as text is a media type, None when
    there is only a stream.
    """

    summary: str
    scopes: frozenset[Scope]
    body: type[BaseModel] | None
    returns: type[BaseModel] | str | None
    stream: type[BaseModel] | None
    errors: tuple[ErrorCode, ...]


@dataclass(frozen=True, slots=True)
class Handler:
    """A handler with its operation."""

    operation: Operation
    handle: Handle

    @property
    def name(self) -> str:
        return self.handle.__name__


class Route(NamedTuple):
    """One line of the route table. Paths are those with `/v1`; they answer without it too."""

    method: str
    path: str
    handler: Handler


def operation(
    *,
    summary: str,
    returns: type[BaseModel] | str | None,
    scope: Scope | Iterable[Scope] | None = None,
    body: type[BaseModel] | None = None,
    stream: type[BaseModel] | None = None,
    errors: Iterable[ErrorCode] = (),
) -> Callable[[Handle], Handler]:
    """Attach an operation to a handler. `scope` None opens the route to all."""
    scopes = frozenset((scope,) if isinstance(scope, Scope) else scope or ())

    def attach(handle: Handle) -> Handler:
        return Handler(Operation(summary, scopes, body, returns, stream, tuple(errors)), handle)

    return attach
