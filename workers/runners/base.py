"""What differs between backends, and nothing else.

Every call is synchronous and made by the engine thread alone, from `open` to `close`: OpenMP runtimes throttle once a
second thread has entered them. Only `abort` may be called from another thread.

KV is reached through handles; who holds the memory behind one is the runner's affair.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]


class Handle(NamedTuple):
    """A sequence's KV. A stale handle (its id since reused) differs in generation."""

    id: int
    generation: int


class ForwardStatus(StrEnum):
    """`NO_SPACE`: no handle changed. `ABORTED`: some handles of the batch may have grown; truncate each of them."""

    OK = "ok"
    NO_SPACE = "no_space"
    ABORTED = "aborted"


class ForkKind(StrEnum):
    SHARED = "shared"
    COPIED = "copied"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class RunnerSpec:
    """What to load, resolved from the model's settings. None leaves the choice to the runner.

    `source` is the model's source after resolution: a file or folder path, or the echo runner's own form.
    `context` is tokens per sequence, `sequences` how many run at once, `batch_tokens` the most tokens of one forward.
    `kv_pages` is the size of the KV memory where it is in pages. `progress` is told how much of the weights is read, 0
    to 1, where the backend knows; on the engine's thread.
    """

    model_id: str
    source: str
    context: int | None = None
    sequences: int | None = None
    threads: int | None = None
    gpu_layers: int | None = None
    kv_type: str | None = None
    batch_tokens: int | None = None
    chat_template: str | None = None
    kv_pages: int | None = None
    progress: Callable[[str, float | None], None] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Limits as data, so that no code above asks which backend it talks to.

    `fork_cost_tokens` is the price of a fork in prefilled tokens. `kv_token_budget` is shared by all handles.
    `kv_format` goes into the fingerprint of exported KV. `exact_batching`: logits depend on nothing else in a batch.
    `max_running`: how many handles are meant for sequences that run, the others only keep KV; None: all may run.
    `max_cached_tokens`: more KV than this, kept for nobody, costs every step more than it is likely to save; None: it
    costs nothing.
    `emit_interval_s`: how long tokens may be held back to go on together; above 0 where the runner computes on all
    processors, since what goes on then takes its time from the next step.
    """

    max_batch_tokens: int
    max_logit_rows: int
    max_handles: int
    max_tokens_per_handle: int
    kv_token_budget: int
    fork: ForkKind
    fork_cost_tokens: int
    can_truncate: bool
    page_size: int | None
    can_export: bool
    exact_batching: bool
    kv_format: str
    emit_interval_s: float = 0.0
    max_running: int | None = None
    max_cached_tokens: int | None = None


class Tokenizer(Protocol):
    """Text to tokens and back. `bos_id` None: the model wants none."""

    vocab_size: int
    bos_id: int | None
    end_ids: frozenset[int]

    def encode(self, text: str, *, add_bos: bool, parse_special: bool) -> list[int]:
        """Token ids of `text`. `parse_special` turns marker text such as `<|im_end|>` into its control token: only for
        text that a chat template wrote, or a raw completion prompt."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes a token stands for in output; empty for control tokens."""
        ...


@dataclass(frozen=True, slots=True)
class RunnerFacts:
    """What only a loaded model knows.

    `fingerprint` covers weights, tokenizer, chat template and backend: only a worker with the same one may continue a
    sequence. `chat_template` is Jinja source, None when the model has none. `bos_token`/`eos_token` are texts for it.
    """

    fingerprint: str
    tokenizer: Tokenizer
    chat_template: str | None
    bos_token: str
    eos_token: str
    description: str
    bytes_per_token: float
    max_token_bytes: int


class Opened(NamedTuple):
    facts: RunnerFacts
    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class Batch:
    """One forward pass as a struct of arrays.

    `tokens`, `handle_ids`, `positions` have one int32 per row. The rows of one handle are contiguous, their positions
    too, starting at `length(handle)`; a handle appears in one run only. `logit_rows` are ascending row numbers.
    """

    tokens: IntArray
    handle_ids: IntArray
    positions: IntArray
    logit_rows: IntArray


@dataclass(frozen=True, slots=True)
class ForwardResult:
    """`logits` is float32 (len(logit_rows), vocab_size), valid until the next `forward`; None unless status is OK."""

    status: ForwardStatus
    logits: FloatArray | None = None


class RunnerError(Exception):
    """The backend cannot go on: the model does not load, or its context is broken. The text is for an operator."""


class RunnerBooks(NamedTuple):
    """What a runner's own books say: the tokens behind each handle in use, and how many handles are free.

    `fault` says what in them contradicts itself, pages held twice or by nobody for instance; empty when nothing does.
    """

    lengths: dict[Handle, int]
    free_handles: int
    fault: str = ""


@runtime_checkable
class KeepsBooks(Protocol):
    """What a runner may offer beside `ModelRunner`, for the engine's integrity check."""

    def books(self) -> RunnerBooks: ...


class ModelRunner(Protocol):
    """A loaded model. See the module docstring for threads."""

    def open(self, spec: RunnerSpec) -> Opened:
        """Load the model and prove it with one trial step. Raises RunnerError with the reason."""
        ...

    def close(self) -> None: ...

    def create(self) -> Handle | None:
        """A new empty handle, or None when `max_handles` are in use."""
        ...

    def release(self, handle: Handle) -> None:
        """Give a handle back. Idempotent, by generation."""
        ...

    def length(self, handle: Handle) -> int: ...

    def can_fit(self, batch: Batch) -> bool:
        """Whether `forward(batch)` will find room."""
        ...

    def forward(self, batch: Batch) -> ForwardResult:
        """Run a batch. Raises RunnerError when the context is broken for good."""
        ...

    def fork(self, handle: Handle, num_tokens: int) -> Handle | None:
        """A new handle that starts with the first `num_tokens` of another; None when there is no handle or space."""
        ...

    def truncate(self, handle: Handle, num_tokens: int) -> None: ...

    def export(self, handle: Handle) -> bytes:
        """The handle's KV as bytes, for `import_` on a runner with the same `kv_format` and fingerprint."""
        ...

    def import_(self, data: bytes, num_tokens: int) -> Handle | None:
        """A handle holding exported KV, or None when it does not fit. The caller has verified the bytes."""
        ...

    def abort(self) -> None:
        """Ask a running `forward` to end early. Safe from any thread; forgotten at the next `forward`."""
        ...
