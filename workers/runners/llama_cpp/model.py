"""A GGUF model's weights and metadata."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers.runners.base import RunnerError
from workers.runners.llama_cpp.kv_types import KV_TYPES
from workers.runners.llama_cpp.library import Library


class LlamaModel:
    """Owns the library's model. `num_gpu_layers` None leaves it to the library: all when there is a GPU. -1 is all too.

    Raises RunnerError, with the library's own reason, when it does not load or does not generate text.
    """

    def __init__(
        self,
        library: Library,
        path: Path,
        *,
        num_gpu_layers: int | None = None,
        use_extra_buffers: bool = True,
        progress: Callable[[str, float | None], None] | None = None,
    ) -> None:
        self._api = library.api
        params = self._api.llama_model_default_params()
        params.use_extra_bufts = use_extra_buffers
        if num_gpu_layers is not None:
            params.n_gpu_layers = num_gpu_layers
        told = _progress_callback(self._api, progress)  # lives until the call returns
        if told is not None:
            params.progress_callback = told
        with library.log.collect() as errors:
            self.pointer: Any = self._api.llama_model_load_from_file(os.fsencode(path), params)
        if not self.pointer:
            raise RunnerError(f"{path.name} does not load: {errors[0] if errors else 'llama.cpp gave no reason'}")
        self.vocab: Any = self._api.llama_model_get_vocab(self.pointer)
        if not self._generates_text():
            self.close()
            raise RunnerError(f"{path.name} is a model of kind {self.description!r}, which does not generate text")

    def close(self) -> None:
        """Free the weights. Every context and tokenizer made from them must be closed before."""
        if self.pointer:
            self._api.llama_model_free(self.pointer)
            self.pointer = None

    def metadata(self, key: str) -> str | None:
        """A metadata value as text; None when the file has no such key."""
        size = self._api.llama_model_meta_val_str(self.pointer, key.encode(), None, 0)
        if size < 0:
            return None
        buffer = ctypes.create_string_buffer(size + 1)
        self._api.llama_model_meta_val_str(self.pointer, key.encode(), buffer, len(buffer))
        return buffer.raw[:size].decode(errors="replace")

    @property
    def description(self) -> str:
        """Architecture, parameters and weight format, for instance `llama 135M Q4_1`."""
        parameters = self._api.llama_model_n_params(self.pointer)
        size = f"{parameters / 1e9:.1f}B" if parameters >= 1e9 else f"{parameters / 1e6:.0f}M"
        weights = self._api.llama_ftype_name(self._api.llama_model_ftype(self.pointer)) or b""
        return f"{self.metadata('general.architecture')} {size} {weights.decode()}"

    @property
    def trained_context(self) -> int:
        return int(self._api.llama_model_n_ctx_train(self.pointer))

    @property
    def can_rewind(self) -> bool:
        """Whether a sequence can lose its last tokens: not when its memory is one state that every token changes."""
        return not (self._api.llama_model_is_recurrent(self.pointer) or self._api.llama_model_is_hybrid(self.pointer))

    def kv_bytes_per_token(self, kv_type: str) -> float:
        """What one token of context takes; an estimate for models whose layers differ."""
        heads = max(1, self._api.llama_model_n_head(self.pointer))
        head_size = self._api.llama_model_n_embd(self.pointer) // heads
        key_size = self._number("attention.key_length", head_size)
        value_size = self._number("attention.value_length", head_size)
        kv_heads = max(1, self._api.llama_model_n_head_kv(self.pointer))
        layers = self._api.llama_model_n_layer(self.pointer)
        return float(layers * kv_heads * (key_size + value_size) * KV_TYPES[kv_type].bytes_per_element)

    def _number(self, key: str, default: int) -> int:
        text = self.metadata(f"{self.metadata('general.architecture')}.{key}")
        return int(text) if text is not None and text.isdigit() else default

    def _generates_text(self) -> bool:
        api = self._api
        is_decoder = api.llama_model_has_decoder(self.pointer) and not api.llama_model_has_encoder(self.pointer)
        return bool(is_decoder and not api.llama_model_is_diffusion(self.pointer))


def _progress_callback(api: Any, progress: Callable[[str, float | None], None] | None) -> Any:
    """What the library calls from 0 to 1 while it reads weights; True lets it go on."""
    if progress is None:
        return None

    def tell(fraction: float, _: object) -> bool:
        progress("loading", fraction)
        return True

    return api.llama_progress_callback(tell)
