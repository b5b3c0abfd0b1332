"""What is written into a request's journal, in the order of its life.

`Accepted` on `.head`; `Started`, `Released`, `Cancelled` and the edge's `Failed` on `.run`; the rest on `.ev`. Of a
request that is not journaled the `Delta`s go to its edge instead, past every stream, and `Held` is what that answers.
Named tuples, since one `Delta` per token is built, packed and unpacked: see `codec` for the wire form and `fold` for
the meaning.
"""

from enum import StrEnum
from typing import Any, NamedTuple


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"


class Usage(NamedTuple):
    """Token counts; `cached_tokens` is the part of the prompt whose KV was reused."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


class Accepted(NamedTuple):
    """The edge took the request. Holds all that another edge needs to go on answering in the original shape.

    `options` are plain values of the edge's own (stream options, parts of a list of prompts, …). `body_hash` guards an
    idempotency key against another body.
    """

    request_id: str
    owner: str
    endpoint: str
    model: str
    created: int
    options: dict[str, Any]
    body_hash: str
    idempotency_key: str | None


class Started(NamedTuple):
    """A claim. `ack_subject` lets whoever sees the worker gone hand the delivery back."""

    run: str
    worker: str
    ack_subject: str
    fingerprint: str


class Released(NamedTuple):
    """The holder of `run` gave the request back unfinished; what it wrote stays."""

    run: str


class Cancelled(NamedTuple):
    """Terminal. Written by an edge: the client left or asked."""

    reason: str


class Progress(NamedTuple):
    """Prompt tokens computed so far. Informs, never decides."""

    run: str
    num_computed: int
    num_prompt: int


class Delta(NamedTuple):
    """Tokens `index` … `index + len(token_ids) - 1` and, aligned with them, the text each one released.

    A piece is empty while text is held back (an incomplete character, a possible stop string); the token that decides
    releases it. So the text up to any token is known exactly, wherever a delta is cut.
    """

    run: str
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls
    token_ids: list[int]
    pieces: list[str]


class Advanced(NamedTuple):
    """The run of a request that is not journaled goes on, and there are `num_tokens` tokens by now."""

    run: str
    num_tokens: int


class Finished(NamedTuple):
    """Terminal, and complete in itself: all token ids and pieces, so that it heals any gap before it.

    Both are empty when the request is not journaled; `usage` tells how many there were.
    """

    run: str
    reason: str
    usage: Usage
    token_ids: list[int]
    pieces: list[str]


class Failed(NamedTuple):
    """Terminal. `run` is None when an edge writes it (deadline); else only the current run's failure counts."""

    run: str | None
    code: str
    message: str
    retryable: bool
    param: str | None = None


class Held(NamedTuple):
    """In no journal: an edge's answer to a `Delta` that asked for one.

    `length` tokens are known to it, and it follows `run`. `token_ids` and `pieces` are those behind the end of that
    delta, not always all of them; `fingerprint` is that of the model which wrote the last of its tokens.
    """

    run: str | None
    length: int
    token_ids: list[int]
    pieces: list[str]
    fingerprint: str | None


Event = Accepted | Started | Released | Cancelled | Progress | Delta | Advanced | Finished | Failed | Held
Terminal = Finished | Failed | Cancelled
