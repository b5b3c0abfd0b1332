"""What a loaded model says about itself."""

import torch

from workers.runners.base import Capabilities, ForkKind, Opened
from workers.runners.checkpoint_facts import describe_checkpoint
from workers.runners.machine import num_processors
from workers.runners.torch.loading import Loaded
from workers.runners.torch.pages import PAGE_SIZE

# As for llama.cpp: where a step takes every processor, what is handed over at every step takes its time from the next.
_EMIT_INTERVAL_S = 0.08


def describe(loaded: Loaded, template_override: str | None) -> Opened:
    """Facts and capabilities."""
    facts = describe_checkpoint(
        loaded.checkpoint,
        template_override,
        identity=("torch", loaded.decoder.precision, loaded.decoder.kv_type),
        description=_description(loaded),
    )
    return Opened(facts, _capabilities(loaded))


def _capabilities(loaded: Loaded) -> Capabilities:
    plan, limits = loaded.plan, loaded.limits
    takes_all = loaded.device.type == "cpu" and loaded.threads >= num_processors()
    return Capabilities(
        max_batch_tokens=limits.max_tokens,
        max_logit_rows=limits.max_logit_rows,
        max_handles=plan.handles,
        max_tokens_per_handle=plan.context,
        kv_token_budget=plan.token_budget,
        fork=ForkKind.SHARED,
        fork_cost_tokens=0,
        can_truncate=True,
        page_size=PAGE_SIZE,
        can_export=True,
        exact_batching=loaded.decoder.is_row_exact,
        kv_format=f"torch {loaded.decoder.kv_type} {loaded.decoder.layout}",
        emit_interval_s=_EMIT_INTERVAL_S if takes_all else 0.0,
        max_running=plan.sequences,
    )


def _description(loaded: Loaded) -> str:
    plan = loaded.plan
    threads = f", {loaded.threads} thread{'s' if loaded.threads > 1 else ''}" if loaded.device.type == "cpu" else ""
    parts = [
        f"PyTorch {torch.__version__} on {loaded.device.type}",
        loaded.checkpoint.description,
        f"{loaded.decoder.precision} ({loaded.decoder.name}){threads}",
        f"{plan.sequences} sequences of up to {plan.context} tokens",
        f"paged {loaded.decoder.kv_type} KV of {plan.token_budget} tokens",
    ]
    return ", ".join(parts)
