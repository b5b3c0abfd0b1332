"""The part of the OpenAI surface that is served, as types: for validating what comes in and describing what goes out.

Validation is strict: "1" and true are no numbers. Unknown top-level names never get here (`parameters`); unknown fields
inside a message are dropped.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Label = Annotated[str, Field(max_length=1024)]
StopString = Annotated[str, Field(min_length=1, max_length=1024)]
MAX_BIASES = 1024


class _In(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)


class StreamOptions(_In):
    include_usage: bool | None = None


class TextPart(_In):
    type: Literal["text"]
    text: str


class Message(_In):
    """A chat message. Content is text, or a list of text parts."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: Annotated[str, Field(min_length=1, max_length=256)] | None = None


class GenerationParameters(_In):
    """What chat and plain completions share."""

    model: Annotated[str, Field(max_length=256)] | None = Field(
        None, description="A model id or alias; absent or 'default' means the default model."
    )
    max_tokens: int | None = Field(None, ge=1, description="At most this many tokens; cut to the room in the context.")
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1, lt=2**31, description="-1 and 0 mean off.")
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: StopString | Annotated[list[StopString], Field(max_length=16)] | None = None
    logit_bias: dict[Annotated[str, Field(max_length=10)], Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        None, max_length=MAX_BIASES, description="Token id (as a string) to a bias from -100 to 100."
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    priority: int | None = Field(
        None, ge=-10, le=10, description="Larger runs sooner (vLLM has it the other way round). Default 0."
    )
    service_tier: Literal["auto", "default", "flex", "priority"] | None = None
    ignore_eos: bool | None = None
    timeout: float | None = Field(None, gt=0, description="Seconds until the request fails with deadline_exceeded.")
    user: Label | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None


class ChatCompletionRequest(GenerationParameters):
    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    continue_final_message: bool | None = Field(
        None, description="The last message is the assistant's and is continued. Default: true when it is."
    )
    add_generation_prompt: bool | None = None


class CompletionRequest(GenerationParameters):
    prompt: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[TokenId], Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
        | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1)]
    ) = Field(description="A string or token ids; or a list of either, answered as one choice each.")


# What goes out. These describe the answers in the OpenAPI document; streams are written from byte templates (`sse`).


class PromptTokensDetails(BaseModel):
    cached_tokens: int


class CompletionUsage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class AnswerMessage(BaseModel):
    role: Literal["assistant"]
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    index: int
    message: AnswerMessage
    logprobs: None = None
    finish_reason: Literal["stop", "length", "content_filter"]


class TextChoice(BaseModel):
    index: int
    text: str
    logprobs: None = None
    finish_reason: Literal["stop", "length", "content_filter"]


class _Answer(BaseModel):
    id: str
    created: int
    model: str
    service_tier: Literal["default", "flex", "priority"]
    system_fingerprint: str | None


class ChatCompletion(_Answer):
    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    usage: CompletionUsage


class Completion(_Answer):
    object: Literal["text_completion"]
    choices: list[TextChoice]
    usage: CompletionUsage


class ChoiceDelta(BaseModel):
    role: Literal["assistant"] | None = None
    content: str | None = None


class ChatChunkChoice(BaseModel):
    index: int
    delta: ChoiceDelta
    logprobs: None = None
    finish_reason: Literal["stop", "length", "content_filter"] | None


class TextChunkChoice(BaseModel):
    index: int
    text: str
    logprobs: None = None
    finish_reason: Literal["stop", "length", "content_filter"] | None


class ChatCompletionChunk(_Answer):
    object: Literal["chat.completion.chunk"]
    choices: list[ChatChunkChoice]
    usage: CompletionUsage | None = None


class CompletionChunk(_Answer):
    object: Literal["text_completion"]
    choices: list[TextChunkChoice]
    usage: CompletionUsage | None = None


class AnyChunk(RootModel[ChatCompletionChunk | CompletionChunk]):
    """A chunk in the shape of the route that the request came by."""


class BackendInfo(BaseModel):
    """Where a model runs now, and why there."""

    worker: str
    backend: str
    reason: str
    fingerprint: str
    context: int
    slots: int


class LoadingInfo(BaseModel):
    worker: str
    stage: str
    fraction: float | None
    elapsed_s: float


class FailedInfo(BaseModel):
    worker: str
    reason: str


class ModelInfo(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    aliases: list[str]
    default: bool
    max_model_len: int | None
    max_output_tokens: int
    ready: bool
    backends: list[BackendInfo]
    loading: list[LoadingInfo]
    failed: list[FailedInfo]


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelInfo]


class Status(BaseModel):
    status: str


class Version(BaseModel):
    version: str


class Welcome(BaseModel):
    name: str
    version: str
    api: str
    openapi: str
    docs: str


class ProtectedResource(BaseModel):
    """RFC 9728; `inferflux_` fields are what `inferctl login` asks the issuer with."""

    resource: str
    authorization_servers: list[str]
    bearer_methods_supported: list[str]
    scopes_supported: list[str]
    inferflux_audience: str
    inferflux_client_id: str | None


class CancelledRequest(BaseModel):
    id: str
    object: Literal["request"]
    cancelled: bool


class ErrorBody(BaseModel):
    """`resume_url` and `last_event_id` are there when the request goes on although its answer was interrupted."""

    message: str
    type: str
    param: str | None
    code: str
    resume_url: str | None = None
    last_event_id: str | None = None


class ErrorAnswer(BaseModel):
    error: ErrorBody


class OpenApiDocument(BaseModel):
    """An OpenAPI 3.1 document."""

    model_config = ConfigDict(extra="allow")

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
