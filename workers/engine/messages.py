"""What goes into an engine and what comes out of it."""

from dataclasses import dataclass
from typing import NamedTuple

from schemas.errors import ServingError
from schemas.events import FinishReason, Usage
from schemas.requests import PriorityClass, Prompt, SamplingParams


@dataclass(frozen=True, slots=True)
class Resume:
    """What an earlier run of the request generated. The engine goes on at index `len(token_ids)`."""

    token_ids: list[int]
    pieces: list[str]


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One sequence to generate.

    `created` (Unix seconds) is the clock a chat template sees, so that a resumed request renders the same prompt; None
    means now. `tenant`: among whose requests KV may be shared, where that is restricted. `is_prefill_only`: the prompt
    is computed and cached, and no token drawn; its end is `Completed` without any.
    """

    request_id: str
    prompt: Prompt
    sampling: SamplingParams
    priority: PriorityClass = PriorityClass.NORMAL
    resume: Resume | None = None
    created: int | None = None
    tenant: str = ""
    is_prefill_only: bool = False


class Tokens(NamedTuple):
    """New tokens and, aligned with them, the text each one released."""

    request_id: str
    token_ids: list[int]
    pieces: list[str]


class PrefillProgress(NamedTuple):
    """Prompt tokens computed so far, while some are still missing."""

    request_id: str
    num_computed: int
    num_prompt: int


class Completed(NamedTuple):
    """The end. `token_ids` and `pieces` are those of the last step, not emitted before."""

    request_id: str
    reason: FinishReason
    usage: Usage
    token_ids: list[int]
    pieces: list[str]


class Errored(NamedTuple):
    """The other end. What was emitted before stays valid."""

    request_id: str
    error: ServingError


Emission = Tokens | PrefillProgress | Completed | Errored
