"""What a model read from a checkpoint says about itself, whichever of our runners computes it."""

import hashlib
from collections.abc import Sequence

from workers.checkpoints import Checkpoint
from workers.runners.base import RunnerFacts
from workers.runners.bytes_per_token import bytes_per_token
from workers.runners.chat_template import choose_template


def describe_checkpoint(
    checkpoint: Checkpoint, template_override: str | None, *, identity: Sequence[str], description: str
) -> RunnerFacts:
    """`identity` is what else decides how a sequence goes on: backend, versions, number types. Not the device or its
    kernels: they change a number's last bits, as the other sequences in a batch do.
    """
    template = choose_template(checkpoint.chat_template, template_override)
    parts = [*identity, checkpoint.fingerprint, template or ""]
    return RunnerFacts(
        fingerprint=hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest()[:32],
        tokenizer=checkpoint.tokenizer,
        chat_template=template,
        bos_token=checkpoint.bos_token,
        eos_token=checkpoint.eos_token,
        description=description,
        bytes_per_token=bytes_per_token(checkpoint.tokenizer),
        max_token_bytes=checkpoint.max_token_bytes,
    )
