"""A model's fingerprint: workers with the same one may continue each other's sequences."""

import hashlib
from pathlib import Path

from workers.runners.llama_cpp.model_files import identity, model_files
from workers.runners.llama_cpp.remembered import Remembered


def weights_digest(path: Path, remembered: Remembered) -> str:
    """SHA-256 over the whole content, tokenizer included; read once as long as the files stay as they are."""
    key = f"sha256 {identity(path)}"
    digest = remembered.get(key)
    if digest is None:
        digest = _digest(path)
        remembered.put(key, digest)
    return digest


def fingerprint(path: Path, remembered: Remembered, *, version: str, kv_type: str, chat_template: str | None) -> str:
    """32 hex digits over weights and tokenizer, chat template, library version and KV type.

    Not the layout, threads or kernels: they change a number's last bits, as the other sequences in a batch do.
    """
    parts = ["llama_cpp", version, kv_type, weights_digest(path, remembered), chat_template or ""]
    return hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest()[:32]


def _digest(path: Path) -> str:
    total = hashlib.sha256()
    for file in model_files(path):
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()
