"""How many pages of KV, for how many sequences of which length."""

from dataclasses import dataclass

from workers.checkpoints import ModelConfig
from workers.runners.base import RunnerError, RunnerSpec
from workers.runners.torch.pages import PAGE_SIZE, num_pages

# Of the memory that is free with the weights loaded. On CPU the rest is for edge, broker and whoever else is here.
_CPU_SHARE = 0.25
_GPU_SHARE = 0.8

_DEFAULT_CONTEXT = 4096
_SEQUENCES_PER_THREAD = 8
_MIN_SEQUENCES = 8
_MAX_SEQUENCES = 32
# A handle is a row of page numbers. Most of them hold KV of sequences that have ended.
_HANDLES_PER_SEQUENCE = 8
_MIN_HANDLES = 256


@dataclass(frozen=True, slots=True)
class KvPlan:
    """`context` is the most tokens of one sequence, `sequences` how many are meant to run at once."""

    context: int
    sequences: int
    handles: int
    pages: int

    @property
    def token_budget(self) -> int:
        return self.pages * PAGE_SIZE


@dataclass(frozen=True, slots=True)
class Room:
    """What there is: memory of the device, the bytes of a page in it, threads that compute."""

    available_bytes: int
    page_bytes: int
    threads: int
    is_gpu: bool


def choose_context(spec: RunnerSpec, config: ModelConfig) -> int:
    """Raises RunnerError for a context that the model was not made for."""
    if spec.context is None:
        return min(_DEFAULT_CONTEXT, config.max_context)
    if not 1 <= spec.context <= config.max_context:
        raise RunnerError(f"context must be from 1 to {config.max_context} for this model, not {spec.context}")
    return spec.context


def plan_kv(spec: RunnerSpec, context: int, room: Room) -> KvPlan:
    """`kv_pages` if that was given; else room for every sequence at full length, as far as a share of the memory holds
    it. Raises RunnerError when not even one sequence has room."""
    sequences = _choose_sequences(spec, room)
    least, wanted = num_pages(context), num_pages(context) * sequences
    held = int(room.available_bytes * (_GPU_SHARE if room.is_gpu else _CPU_SHARE)) // room.page_bytes
    pages = spec.kv_pages or max(least, min(wanted, held))
    if pages < least:
        raise RunnerError(
            f"{pages} pages of KV hold {pages * PAGE_SIZE} tokens, and `context` is {context}; set"
            f" runtime.paged_kv.cpu_pages to {least} or more, or a smaller `context`"
        )
    if pages * room.page_bytes > room.available_bytes:
        raise RunnerError(
            f"{pages * PAGE_SIZE} tokens of KV need {_size(pages * room.page_bytes)} of memory and"
            f" {_size(room.available_bytes)} are available; set a smaller `context` or runtime.paged_kv.cpu_pages"
        )
    return KvPlan(context, sequences, max(_MIN_HANDLES, _HANDLES_PER_SEQUENCE * sequences), pages)


def _choose_sequences(spec: RunnerSpec, room: Room) -> int:
    if spec.sequences is None:
        return (
            _MAX_SEQUENCES
            if room.is_gpu
            else min(max(room.threads * _SEQUENCES_PER_THREAD, _MIN_SEQUENCES), _MAX_SEQUENCES)
        )
    if spec.sequences < 1:
        raise RunnerError(f"sequences must be at least 1, not {spec.sequences}")
    return spec.sequences


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.0f} MiB"
