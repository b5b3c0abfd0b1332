"""A model's fingerprint: workers with the same one may continue each other's sequences."""

import hashlib
from pathlib import Path

from workers.checkpoints.digest import content_digest
from workers.runners.model_files import model_files
from workers.runners.remembered import Remembered


def fingerprint(path: Path, remembered: Remembered, *, version: str, kv_type: str, chat_template: str | None) -> str:
    """32 hex digits over weights and tokenizer, chat template, library version and KV type.

    Not the layout, threads, micro-batch or kernels: they change a number's last bits, as the other sequences in a batch
    do.
    """
    parts = ["llama_cpp", version, kv_type, content_digest(model_files(path), remembered), chat_template or ""]
    return hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest()[:32]
