"""A llama.cpp context: the KV memory of many sequences, and the decode over them."""

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.runners.base import FloatArray, IntArray, RunnerError
from workers.runners.llama_cpp.abort_flag import AbortFlag
from workers.runners.llama_cpp.batch_buffers import BatchBuffers
from workers.runners.llama_cpp.kv_types import KV_TYPES
from workers.runners.llama_cpp.library import Library
from workers.runners.llama_cpp.model import LlamaModel
from workers.runners.llama_cpp.sizing import KvPlan
from workers.runners.llama_cpp.tuning import Tuning

# A copy's staging buffer up to this size is kept: fresh memory costs more than the copy itself.
_MAX_KEPT_BYTES = 64 * 2**20

_ALL = -1
_U8_POINTER = ctypes.POINTER(ctypes.c_uint8)


@dataclass(frozen=True, slots=True)
class ContextOptions:
    plan: KvPlan
    kv_type: str
    tuning: Tuning
    batch_tokens: int
    logit_rows: int


class LlamaContext:
    """Owns the library's context and the batch struct. Raises RunnerError when there is no room for it.

    Sequences are small numbers; one exists as soon as it has tokens. `abort_flag` None: decodes run to their end.
    """

    def __init__(
        self, library: Library, model: LlamaModel, options: ContextOptions, abort_flag: AbortFlag | None = None
    ) -> None:
        self._api = library.api
        self._log = library.log
        self._abort_flag = abort_flag
        with library.log.collect() as errors:
            self._pointer: Any = self._api.llama_init_from_model(model.pointer, self._params(options))
        if not self._pointer:
            raise RunnerError(f"llama.cpp makes no context: {errors[0] if errors else 'it gave no reason'}")
        self._memory: Any = self._api.llama_get_memory(self._pointer)
        self.max_batch_tokens = min(options.batch_tokens, int(self._api.llama_n_batch(self._pointer)))
        self.vocab_size = int(self._api.llama_vocab_n_tokens(model.vocab))
        self._buffers = BatchBuffers(library, self.max_batch_tokens)
        self._staging: list[npt.NDArray[np.uint8]] = [np.empty(0, np.uint8), np.empty(0, np.uint8)]
        self._logits_place = (0, 0)
        self._logits_view: FloatArray = np.empty((0, self.vocab_size), np.float32)
        self.last_error = ""

    def close(self) -> None:
        if self._pointer:
            self._buffers.close()
            self._api.llama_free(self._pointer)
            self._pointer = None

    def set_threads(self, threads: int, batch_threads: int) -> None:
        """From the next decode on."""
        self._api.llama_set_n_threads(self._pointer, threads, batch_threads)

    def decode(
        self, tokens: IntArray, positions: IntArray, sequences: IntArray, logit_rows: npt.NDArray[np.integer[Any]]
    ) -> int:
        """Run rows; `llama_decode`'s code. 0: done. 1: no room, nothing changed. 2: aborted, some sequences may have
        grown. Below 0: `last_error` says why."""
        self._buffers.fill(tokens, positions, sequences, logit_rows)
        with self._log.collect(is_quiet=True) as errors:
            code = int(self._api.llama_decode(self._pointer, self._buffers.batch))
        self.last_error = errors[0] if errors else ""
        return code

    def logits(self, num_rows: int) -> FloatArray:
        """A view of the last decode's logits, (num_rows, vocab_size), in the order of the rows."""
        if num_rows == 0:
            return np.empty((0, self.vocab_size), np.float32)
        pointer = self._api.llama_get_logits(self._pointer)
        place = (ctypes.addressof(pointer.contents), num_rows)
        if place != self._logits_place:  # the library seldom moves them, and making a view takes long
            self._logits_view = np.ctypeslib.as_array(pointer, (num_rows, self.vocab_size))
            self._logits_place = place
        return self._logits_view

    def num_tokens(self, sequence: int) -> int:
        return int(self._api.llama_memory_seq_pos_max(self._memory, sequence)) + 1

    def truncate(self, sequence: int, num_tokens: int) -> bool:
        """Keep the first `num_tokens`. False when this model cannot keep a part."""
        return bool(self._api.llama_memory_seq_rm(self._memory, sequence, num_tokens, _ALL))

    def clear(self, sequence: int) -> None:
        self._api.llama_memory_seq_rm(self._memory, sequence, _ALL, _ALL)

    def share(self, source: int, target: int, num_tokens: int) -> None:
        """Let `target` begin with the same cells. NOTE: in split layout a part aborts the process, and a whole copies
        the buffer only at the next decode, from whatever it holds then: `copy` instead."""
        self._api.llama_memory_seq_cp(self._memory, source, target, 0, num_tokens)

    def copy(self, source: int, target: int) -> bool:
        """Let `target`, an empty sequence, hold a copy of all of `source`, at once. False when that failed."""
        data = self._save(source)
        return data is not None and self._load(target, data)

    def exchange(self, one: int, other: int) -> None:
        """Let two sequences have each other's KV. Raises RunnerError when the library does not do it: both are lost."""
        saved, other_saved = self._save(one, 0), self._save(other, 1)
        if saved is None or other_saved is None:
            raise RunnerError(f"llama.cpp does not copy a sequence: {self.last_error}")
        self.clear(one)
        self.clear(other)
        if not self._load(one, other_saved) or not self._load(other, saved):
            raise RunnerError(f"llama.cpp does not take back a sequence: {self.last_error}")

    def save(self, sequence: int) -> bytes:
        """A sequence's KV in the library's own form. Raises RunnerError when the library does not write it."""
        data = self._save(sequence)
        if data is None:
            raise RunnerError(f"llama.cpp does not export a sequence: {self.last_error}")
        return data.tobytes()

    def load(self, sequence: int, data: bytes) -> bool:
        """Let an empty sequence hold what `save` returned. False, and still empty, when the library refuses it."""
        return self._load(sequence, np.frombuffer(data, np.uint8))

    def _save(self, sequence: int, place: int = 0) -> npt.NDArray[np.uint8] | None:
        with self._log.collect() as errors:
            size = int(self._api.llama_state_seq_get_size_ext(self._pointer, sequence, 0))
            data = self._staging_buffer(size, place)
            written = self._api.llama_state_seq_get_data_ext(self._pointer, _address(data), size, sequence, 0)
        self.last_error = errors[0] if errors else ""
        return data if size and written == size else None

    def _load(self, sequence: int, data: npt.NDArray[np.uint8]) -> bool:
        with self._log.collect(is_quiet=True) as errors:
            read = self._api.llama_state_seq_set_data_ext(self._pointer, _address(data), len(data), sequence, 0)
        self.last_error = errors[0] if errors else ""
        if read != len(data):
            self.clear(sequence)
        return bool(read == len(data))

    def _staging_buffer(self, size: int, place: int) -> npt.NDArray[np.uint8]:
        if size > _MAX_KEPT_BYTES:
            return np.empty(size, np.uint8)
        if size > len(self._staging[place]):
            self._staging[place] = np.empty(size, np.uint8)
        return self._staging[place][:size]

    def _params(self, options: ContextOptions) -> Any:
        api, plan = self._api, options.plan
        params = api.llama_context_default_params()
        params.n_ctx = plan.num_cells
        params.n_seq_max = plan.num_handles
        params.kv_unified = plan.is_unified
        params.type_k = params.type_v = KV_TYPES[options.kv_type].ggml_type
        params.n_batch = options.batch_tokens
        params.n_ubatch = min(options.tuning.micro_batch, options.batch_tokens)
        # The graph is laid out for this many rows of logits, and the library aborts the process above it.
        params.n_outputs_max = max(options.logit_rows, plan.num_handles)
        params.n_threads = options.tuning.threads
        params.n_threads_batch = options.tuning.batch_threads
        params.flash_attn_type = api.LLAMA_FLASH_ATTN_TYPE_AUTO
        params.no_perf = True
        if self._abort_flag is not None:
            params.abort_callback = ctypes.cast(self._abort_flag.function, api.ggml_abort_callback)
            params.abort_callback_data = self._abort_flag.address
        return params


def _address(data: npt.NDArray[np.uint8]) -> Any:
    return data.ctypes.data_as(_U8_POINTER)
