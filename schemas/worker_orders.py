"""What is asked of one worker over its control subject, and what it answers: small JSON documents.

`{"op": "cordon", "on": true}` is answered by `{"answer": {…}}`, or by `{"refusal": {"code", "message", "param"}}`. An
order with a field that the worker does not know is refused; what an answer has besides is ignored.
"""

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from schemas.errors import ErrorCode, ServingError
from schemas.requests import ChatMessage

DrainMode = Literal["hand_back", "finish"]
PageState = Literal["used", "reserved", "cached", "free"]
Answer = TypeVar("Answer", bound=BaseModel)


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Describe(_Document):
    """How it is: answered by `WorkerStatus`."""

    op: Literal["describe"] = "describe"


class DrainOrder(_Document):
    """Take nothing new and leave: at once with what runs handed back, or when all of it has finished."""

    op: Literal["drain"] = "drain"
    mode: DrainMode


class Cordon(_Document):
    """Take nothing new, and stay; or take again."""

    op: Literal["cordon"] = "cordon"
    on: bool


class ClearCache(_Document):
    """Drop the KV that nobody uses, of one model or of all: answered by `Cleared`."""

    op: Literal["clear_cache"] = "clear_cache"
    model: str | None = None


class WarmCache(_Document):
    """Compute a prompt, so that later ones that begin like it need not: answered by `Warmed`. Text or messages."""

    op: Literal["warm_cache"] = "warm_cache"
    model: str
    text: str | None = None
    messages: tuple[ChatMessage, ...] = ()
    continue_last: bool = False
    tenant: str = ""


Order = Describe | DrainOrder | Cordon | ClearCache | WarmCache


class CacheStatus(_Document):
    """KV of one model on one worker. Pages are of `page_size` tokens, 1 where the backend has none.

    Used pages are among the reserved ones; reserved, cached and free are all there is. `hits` … `evictions` count
    since the worker started.
    """

    enabled: bool
    scope: Literal["global", "tenant"]
    page_size: int
    pages: dict[PageState, int]
    cached_tokens: int
    entries: int
    hits: int
    misses: int
    matched_tokens: int
    evictions: int


class ModelStatus(_Document):
    """`waiting`: requests that gave their place to others and wait inside the worker."""

    id: str
    slots: int
    busy: int
    waiting: int
    free: int
    cache: CacheStatus


class WorkerStatus(_Document):
    """`supervised`: whoever started it starts it again when it ends. `requests` are those in hand, by id."""

    uptime_s: float
    cordoned: bool
    draining: bool
    supervised: bool
    requests: tuple[str, ...]
    models: tuple[ModelStatus, ...]


class ClearedModel(_Document):
    id: str
    entries: int
    tokens: int


class Cleared(_Document):
    models: tuple[ClearedModel, ...]


class Warmed(_Document):
    """Tokens of the prompt, and how many of them were there before."""

    prompt_tokens: int
    cached_tokens: int


class Refusal(_Document):
    code: str
    message: str
    param: str | None = None


class _Reply(_Document):
    answer: dict[str, object] | None = None
    refusal: Refusal | None = None


class NotAnOrder(ValueError):
    """Bytes that are none of ours."""


_ORDERS: TypeAdapter[Order] = TypeAdapter(Annotated[Order, Field(discriminator="op")])


def encode_order(order: Order) -> bytes:
    return order.model_dump_json().encode()


def decode_order(payload: bytes) -> Order:
    """Raises NotAnOrder."""
    try:
        return _ORDERS.validate_json(payload)
    except ValidationError as error:
        raise NotAnOrder(error.errors(include_url=False, include_input=False)[0]["msg"]) from None


def encode_answer(answer: BaseModel) -> bytes:
    return _Reply(answer=answer.model_dump(mode="json")).model_dump_json(exclude_none=True).encode()


def encode_refusal(error: ServingError) -> bytes:
    refusal = Refusal(code=str(error.code), message=error.message, param=error.param)
    return _Reply(refusal=refusal).model_dump_json(exclude_none=True).encode()


def decode_answer(payload: bytes, kind: type[Answer]) -> Answer:
    """Raises ServingError with the worker's refusal, or INTERNAL for what is no answer."""
    try:
        reply = _Reply.model_validate_json(payload, extra="ignore")
        if reply.refusal is not None:
            raise _as_error(reply.refusal)
        return kind.model_validate(reply.answer, strict=False, extra="ignore")
    except ValidationError:
        raise ServingError(ErrorCode.INTERNAL, "the worker gave an answer that is none") from None


def _as_error(refusal: Refusal) -> ServingError:
    try:
        code = ErrorCode(refusal.code)
    except ValueError:
        code = ErrorCode.INTERNAL
    return ServingError(code, refusal.message, param=refusal.param)
