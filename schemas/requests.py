"""What a client asked for, as it travels from the edge to a worker. Immutable; the edge fills in its defaults."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal


class PriorityClass(StrEnum):
    """Strict classes, highest first. Inside a class requests run by arrival."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"
    BATCH = "batch"

    @property
    def rank(self) -> int:
        """0 for the highest class; larger runs later."""
        return _RANKS[self]


_RANKS = {priority: rank for rank, priority in enumerate(PriorityClass)}


class Endpoint(StrEnum):
    """Which HTTP shape the answer takes, also when another edge resumes it."""

    CHAT = "chat.completions"
    COMPLETIONS = "completions"


@dataclass(frozen=True, slots=True)
class Grants:
    """What an identity may use: model globs and the highest priority class."""

    models: tuple[str, ...] = ("*",)
    ceiling: PriorityClass = PriorityClass.NORMAL


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks. `owner` is a key or token subject id, never a secret; it decides who may resume or cancel."""

    owner: str
    tenant: str = "default"
    scopes: tuple[str, ...] = ()
    grants: Grants = field(default_factory=Grants)


@dataclass(frozen=True, slots=True)
class ChatMessage:
    role: str
    content: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """Messages for the model's chat template. `continue_last`: the last one is the assistant's and goes on unclosed."""

    messages: tuple[ChatMessage, ...]
    continue_last: bool = False
    kind: Literal["chat"] = "chat"


@dataclass(frozen=True, slots=True)
class TextPrompt:
    text: str
    kind: Literal["text"] = "text"


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """Token ids of the served model, used as they are: no BOS is added."""

    token_ids: tuple[int, ...]
    kind: Literal["tokens"] = "tokens"


Prompt = ChatPrompt | TextPrompt | TokenPrompt


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to draw tokens and when to stop.

    `max_tokens` None means the room left in the context, at most the model's `max_output_tokens`. `top_k` 0 means off.
    `seed` is always set: draws depend on (seed, token index) alone, so that another worker continues the same text.
    """

    seed: int
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One sequence to generate. A call with several prompts becomes several requests, each with its own journal.

    `edge` owns the journal's subject. `deadline_ms` is Unix time in milliseconds; the edge enforces it by its own
    clock, for a worker it is a hint. `submission` is raised by every deliberate re-queue, whose message id would be
    swallowed otherwise.
    `labels` are hashes of the client's labels, for logs only. `journaled` false: no token may enter a stream.
    """

    request_id: str
    edge: str
    model: str
    endpoint: Endpoint
    created: int
    deadline_ms: int
    identity: Identity
    prompt: Prompt
    sampling: SamplingParams
    priority: PriorityClass = PriorityClass.NORMAL
    submission: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    traceparent: str | None = None
    journaled: bool = True
